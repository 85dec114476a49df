using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// One lane's sums: the upper 16 rows of the tile with each tile of x, then the lower 16 rows. Float32, or the bits of integers.
/// </summary>
internal struct SkinnyAccumulators
{
    public F4 Upper0, Upper1, Lower0, Lower1;
}

/// <summary>The multiplication of a chunk in <see cref="SkinnyGemm"/>.</summary>
internal static class SkinnyProducts
{
    /// <summary>Adds a chunk's products with each tile of x.</summary>
    public static void Multiply<TFormat, TInput, TTiles>(SkinnyChunk w, SkinnyInputTiles x, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles => Multiply<TFormat, TInput, TTiles>(w, x, default, stashes: false, ref sums);

    /// <summary>The same where the sums of a second tile are those of <see cref="SkinnyStash"/>, if it serves the format.</summary>
    public static void Multiply<TFormat, TInput, TTiles>(SkinnyChunk w, SkinnyInputTiles x, ArrayView<uint> stash, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles => Multiply<TFormat, TInput, TTiles>(w, x, stash, SkinnyStash.Serves<TFormat, TTiles>(), ref sums);

    private static void Multiply<TFormat, TInput, TTiles>(SkinnyChunk w, SkinnyInputTiles x, ArrayView<uint> stash, bool stashes, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        if (TFormat.HasGroupScales || TFormat.HasZeroPoints)
        {
            w.Operand0 = TFormat.PrepareOperand(w.Operand0);
            w.Operand1 = TFormat.PrepareOperand(w.Operand1);
            w.Operand2 = TFormat.PrepareOperand(w.Operand2);
            w.Operand3 = TFormat.PrepareOperand(w.Operand3);
            if (TInput.AreCodes)
            {
                x.Tile0.Operand = TFormat.PrepareOperand(x.Tile0.Operand);
                x.Tile1.Operand = TFormat.PrepareOperand(x.Tile1.Operand);
            }
        }
        if (TFormat.HasGroupScales || TInput.AreIntegers)
        {
            // Codes are multiplied by all that scales them, or their whole sums are: products go straight into the sums.
            Steps<TFormat, TInput, TTiles>(w, x, ref sums);
            return;
        }
        SkinnyAccumulators parts = default;
        Steps<TFormat, TInput, TTiles>(w, x, ref parts);
        if (stashes)
            (sums.Upper1, sums.Lower1) = SkinnyStash.Load(stash);
        Accumulate<TFormat, TInput, TTiles>(w, parts, x, ref sums);
        if (stashes)
            SkinnyStash.Store(stash, sums.Upper1, sums.Lower1);
    }

    private static void Steps<TFormat, TInput, TTiles>(SkinnyChunk w, SkinnyInputTiles x, ref SkinnyAccumulators parts)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        Step<TFormat, TInput, TTiles>(w, 0, (x.Tile0.X0, x.Tile1.X0), x, ref parts);
        if (TFormat.CodesPerWordShift > 1)
            Step<TFormat, TInput, TTiles>(w, 1, (x.Tile0.X1, x.Tile1.X1), x, ref parts);
        if (TFormat.CodesPerWordShift > 2)
        {
            Step<TFormat, TInput, TTiles>(w, 2, (x.Tile0.X2, x.Tile1.X2), x, ref parts);
            Step<TFormat, TInput, TTiles>(w, 3, (x.Tile0.X3, x.Tile1.X3), x, ref parts);
        }
    }

    // Eight codes of each row: two mma's a half of the tile and a tile of x. Inputs are eight BF16 or, as codes, in the first word.
    private static void Step<TFormat, TInput, TTiles>(SkinnyChunk w, int step, (U4 Tile0, U4 Tile1) inputs, SkinnyInputTiles x, ref SkinnyAccumulators parts)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        U4 inputs0 = TInput.Decode<TFormat>(TInput.AreCodes ? x.Tile0.X0 : inputs.Tile0, step, x.Tile0.Operand), inputs1 = default;
        if (TTiles.Count == 2)
            inputs1 = TInput.Decode<TFormat>(TInput.AreCodes ? x.Tile1.X0 : inputs.Tile1, step, x.Tile1.Operand);
        U4 row0 = TFormat.Decode(w.Row0, step, w.Operand0), row1 = TFormat.Decode(w.Row1, step, w.Operand1);
        parts.Upper0 = Multiply<TFormat, TInput>(row0, row1, inputs0, parts.Upper0);
        if (TTiles.Count == 2)
            parts.Upper1 = Multiply<TFormat, TInput>(row0, row1, inputs1, parts.Upper1);
        U4 row2 = TFormat.Decode(w.Row2, step, w.Operand2), row3 = TFormat.Decode(w.Row3, step, w.Operand3);
        parts.Lower0 = Multiply<TFormat, TInput>(row2, row3, inputs0, parts.Lower0);
        if (TTiles.Count == 2)
            parts.Lower1 = Multiply<TFormat, TInput>(row2, row3, inputs1, parts.Lower1);
    }

    private static F4 Multiply<TFormat, TInput>(U4 upper, U4 lower, U4 x, F4 part)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        if (TInput.AreIntegers)
            return MultiplyBytes(upper, lower, x, part);
        part = Multiply<TFormat>(upper.X, lower.X, upper.Y, lower.Y, x.X, x.Y, part);
        return Multiply<TFormat>(upper.Z, lower.Z, upper.W, lower.W, x.Z, x.W, part);
    }

    // Two registers of bytes a row and column; the sums are integers.
    private static F4 MultiplyBytes(U4 upper, U4 lower, U4 x, F4 part)
    {
        U4 weights, sums;
        weights.X = upper.X;
        weights.Y = lower.X;
        weights.Z = upper.Y;
        weights.W = lower.Y;
        U2 inputs;
        inputs.X = x.X;
        inputs.Y = x.Y;
        sums.X = Interop.FloatAsInt(part.X);
        sums.Y = Interop.FloatAsInt(part.Y);
        sums.Z = Interop.FloatAsInt(part.Z);
        sums.W = Interop.FloatAsInt(part.W);
        sums = Mma.S8(weights, inputs, sums);
        part.X = Interop.IntAsFloat(sums.X);
        part.Y = Interop.IntAsFloat(sums.Y);
        part.Z = Interop.IntAsFloat(sums.Z);
        part.W = Interop.IntAsFloat(sums.W);
        return part;
    }

    /// <summary>sum + one mma: the fragment of 16 rows of W and that of eight columns of x, in the format's 16-bit type.</summary>
    public static F4 Multiply<TFormat>(uint a0, uint a1, uint a2, uint a3, uint x0, uint x1, F4 sum)
        where TFormat : struct, IStreamedFormat
    {
        U4 weights;
        weights.X = a0;
        weights.Y = a1;
        weights.Z = a2;
        weights.W = a3;
        U2 inputs;
        inputs.X = x0;
        inputs.Y = x1;
        return TFormat.IsF16 ? Mma.F16(weights, inputs, sum) : Mma.Bf16(weights, inputs, sum);
    }

    private static void Accumulate<TFormat, TInput, TTiles>(SkinnyChunk w, SkinnyAccumulators parts, SkinnyInputTiles x, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        if (TFormat.HasTileScales)
        {
            w.Scale1 = w.Scale0;
            w.Scale2 = w.Scale0;
            w.Scale3 = w.Scale0;
        }
        sums.Upper0 = Accumulate<TFormat, TInput>(sums.Upper0, parts.Upper0, w.Scale0, w.Scale1, x.Tile0);
        sums.Lower0 = Accumulate<TFormat, TInput>(sums.Lower0, parts.Lower0, w.Scale2, w.Scale3, x.Tile0);
        if (TTiles.Count == 2)
        {
            sums.Upper1 = Accumulate<TFormat, TInput>(sums.Upper1, parts.Upper1, w.Scale0, w.Scale1, x.Tile1);
            sums.Lower1 = Accumulate<TFormat, TInput>(sums.Lower1, parts.Lower1, w.Scale2, w.Scale3, x.Tile1);
        }
    }

    // Registers X and Y belong to row g, Z and W to row g + 8; X and Z to an even column of x, Y and W to the next.
    private static F4 Accumulate<TFormat, TInput>(F4 sum, F4 part, uint upperScale, uint lowerScale, SkinnyInputs x)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        bool scaled = TFormat.HasTileScales || TFormat.HasRowScales;
        float upper = scaled ? Interop.IntAsFloat(upperScale) * TFormat.Correction : 1f;
        float lower = scaled ? Interop.IntAsFloat(lowerScale) * TFormat.Correction : 1f;
        float column0 = TInput.ScaleColumns > 0 ? x.Column0 : 1f, column1 = TInput.ScaleColumns > 0 ? x.Column1 : 1f;
        sum.X = Fast.Fma(part.X, upper * column0, sum.X);
        sum.Y = Fast.Fma(part.Y, upper * column1, sum.Y);
        sum.Z = Fast.Fma(part.Z, lower * column0, sum.Z);
        sum.W = Fast.Fma(part.W, lower * column1, sum.W);
        return sum;
    }
}
