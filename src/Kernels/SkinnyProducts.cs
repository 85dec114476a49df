using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// One lane's weights of a chunk: a 16-byte word of the rows g, g + 8, g + 16 and g + 24, and their multipliers, float32 bits or
/// a pair of E4M3.
/// </summary>
internal struct SkinnyChunk
{
    public U4 Row0, Row1, Row2, Row3;
    public uint Scale0, Scale1, Scale2, Scale3;
}

/// <summary>One lane's inputs of one word of weights in one tile of x: eight BF16 a step of the format.</summary>
internal struct SkinnyInputs
{
    public U4 X0, X1, X2, X3;
}

/// <summary>
/// One lane's sums: the upper 16 rows of the tile with the first and the second tile of x, then the lower 16 rows.
/// </summary>
internal struct SkinnyAccumulators
{
    public F4 Upper0, Upper1, Lower0, Lower1;
}

/// <summary>The multiplication of a chunk in <see cref="SkinnyGemm"/>.</summary>
internal static class SkinnyProducts
{
    /// <summary>Adds a chunk's products with one tile of x or two.</summary>
    public static void Multiply<TFormat, TTiles>(SkinnyChunk w, SkinnyInputs x0, SkinnyInputs x1, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        SkinnyAccumulators parts = default;
        if (TFormat.HasGroupScales)
        {
            w.Scale0 = TFormat.DecodeGroupScales(w.Scale0);
            w.Scale1 = TFormat.DecodeGroupScales(w.Scale1);
            w.Scale2 = TFormat.DecodeGroupScales(w.Scale2);
            w.Scale3 = TFormat.DecodeGroupScales(w.Scale3);
        }
        Step<TFormat, TTiles>(w, 0, x0.X0, x1.X0, ref parts);
        if (TFormat.CodesPerWordShift > 1)
            Step<TFormat, TTiles>(w, 1, x0.X1, x1.X1, ref parts);
        if (TFormat.CodesPerWordShift > 2)
        {
            Step<TFormat, TTiles>(w, 2, x0.X2, x1.X2, ref parts);
            Step<TFormat, TTiles>(w, 3, x0.X3, x1.X3, ref parts);
        }
        sums.Upper0 = Accumulate<TFormat>(sums.Upper0, parts.Upper0, w.Scale0, w.Scale1);
        sums.Lower0 = Accumulate<TFormat>(sums.Lower0, parts.Lower0, w.Scale2, w.Scale3);
        if (TTiles.Count == 2)
        {
            sums.Upper1 = Accumulate<TFormat>(sums.Upper1, parts.Upper1, w.Scale0, w.Scale1);
            sums.Lower1 = Accumulate<TFormat>(sums.Lower1, parts.Lower1, w.Scale2, w.Scale3);
        }
    }

    // Eight codes of each row: two mma's a half of the tile and a tile of x.
    private static void Step<TFormat, TTiles>(SkinnyChunk w, int step, U4 x0, U4 x1, ref SkinnyAccumulators parts)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        x0 = TFormat.Arrange(x0);
        if (TTiles.Count == 2)
            x1 = TFormat.Arrange(x1);
        U4 row0 = TFormat.Decode(w.Row0, step, w.Scale0), row1 = TFormat.Decode(w.Row1, step, w.Scale1);
        parts.Upper0 = Multiply(row0, row1, x0, parts.Upper0);
        if (TTiles.Count == 2)
            parts.Upper1 = Multiply(row0, row1, x1, parts.Upper1);
        U4 row2 = TFormat.Decode(w.Row2, step, w.Scale2), row3 = TFormat.Decode(w.Row3, step, w.Scale3);
        parts.Lower0 = Multiply(row2, row3, x0, parts.Lower0);
        if (TTiles.Count == 2)
            parts.Lower1 = Multiply(row2, row3, x1, parts.Lower1);
    }

    private static F4 Multiply(U4 upper, U4 lower, U4 x, F4 part)
    {
        part = Multiply(upper.X, lower.X, upper.Y, lower.Y, x.X, x.Y, part);
        return Multiply(upper.Z, lower.Z, upper.W, lower.W, x.Z, x.W, part);
    }

    private static F4 Multiply(uint a0, uint a1, uint a2, uint a3, uint x0, uint x1, F4 sum)
    {
        U4 weights;
        weights.X = a0;
        weights.Y = a1;
        weights.Z = a2;
        weights.W = a3;
        U2 inputs;
        inputs.X = x0;
        inputs.Y = x1;
        return Mma.Bf16(weights, inputs, sum);
    }

    // Registers X and Y belong to row g, Z and W to row g + 8.
    private static F4 Accumulate<TFormat>(F4 sum, F4 part, uint upperScale, uint lowerScale)
        where TFormat : struct, IStreamedFormat
    {
        float upper = TFormat.HasBlockScales ? Interop.IntAsFloat(upperScale) * TFormat.Correction : 1f;
        float lower = TFormat.HasBlockScales ? Interop.IntAsFloat(lowerScale) * TFormat.Correction : 1f;
        sum.X = Fast.Fma(part.X, upper, sum.X);
        sum.Y = Fast.Fma(part.Y, upper, sum.Y);
        sum.Z = Fast.Fma(part.Z, lower, sum.Z);
        sum.W = Fast.Fma(part.W, lower, sum.W);
        return sum;
    }
}
