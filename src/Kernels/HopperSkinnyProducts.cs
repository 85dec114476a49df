using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>One lane's codes of a chunk: two 16-byte words of four rows.</summary>
internal struct HopperSkinnyCodes
{
    public U4 First0, First1, First2, First3, Second0, Second1, Second2, Second3;
}

/// <summary>What a lane's decoder and sums need for the two words of its four rows: float32 multipliers and zero points, or E4M3 multipliers of groups.</summary>
internal struct HopperSkinnyOperands
{
    public uint First0, First1, First2, First3, Second0, Second1, Second2, Second3;
    public uint Zeros0, Zeros1, Zeros2, Zeros3;
}

/// <summary>Loads and products of a chunk in <see cref="HopperSkinnyGemm"/>.</summary>
internal static class HopperSkinnyProducts
{
    // Rows of a tile that a lane's four are apart.
    private const int RowStep = 8, RowStepBytes = RowStep * HopperSkinnyGemm.ChunkBytes;

    /// <summary>
    /// The first of a lane's four rows. Copies exchange the 16-byte words of a row by its number, and eight lanes that are served together, two rows' words, must ask for all banks once: words 0 to 3 of rows 0 and 4,
    /// 1 and 5, …, or words 0, 2, 4 and 6 of rows beside each other.
    /// </summary>
    public static int Row<TFormat>(int lane)
        where TFormat : struct, IStreamedFormat => TFormat.HasGroupScales ? lane >> 2 : (lane & 4) + (lane >> 3);

    /// <summary>Which of a row's eight 16-byte words are a lane's: with E4M3 multipliers neighbours, whose four multipliers are then neighbours, too; else one of each half, which has its own multiplier.</summary>
    public static int Word<TFormat>(int lane, int second)
        where TFormat : struct, IStreamedFormat => TFormat.HasGroupScales ? (2 * (lane & 3)) + second : (lane & 3) + (4 * second);

    /// <summary>A lane's codes of a stage.</summary>
    public static HopperSkinnyCodes LoadCodes<TFormat>(HopperSkinnyWarp warp, int stage)
        where TFormat : struct, IStreamedFormat
    {
        int row = Row<TFormat>(warp.Lane);
        uint at = warp.Ring + (uint)(stage + (row * HopperSkinnyGemm.ChunkBytes) + (((Word<TFormat>(warp.Lane, 0) ^ row) & 7) << 4)), other = at ^ (TFormat.HasGroupScales ? 16u : 64u);
        HopperSkinnyCodes codes;
        codes.Second0 = SharedWindow.Load(other);
        codes.Second1 = SharedWindow.Load(other + RowStepBytes);
        codes.Second2 = SharedWindow.Load(other + (2 * RowStepBytes));
        codes.Second3 = SharedWindow.Load(other + (3 * RowStepBytes));
        codes.First0 = SharedWindow.Load(at);
        codes.First1 = SharedWindow.Load(at + RowStepBytes);
        codes.First2 = SharedWindow.Load(at + (2 * RowStepBytes));
        codes.First3 = SharedWindow.Load(at + (3 * RowStepBytes));
        return codes;
    }

    /// <summary>Copies what is stored beside the codes of a chunk, a row a lane: eight E4M3 multipliers twice, or one float32 a half.</summary>
    public static void RequestAside<TFormat>(HopperSkinnyArgs a, HopperSkinnyWarp warp, HopperSkinnyRun unit, int at)
        where TFormat : struct, IStreamedFormat
    {
        int row = IntrinsicMath.Min((unit.Tile * HopperSkinnyGemm.Rows) + warp.Lane, a.N - 1), chunk = unit.Chunk;
        if (TFormat.HasGroupScales)
        {
            // What lies behind the row is no multiplier of it.
            int groups = a.K >> 4, first = chunk * 16;
            long from = a.Groups + ((long)row * groups) + first;
            int second = groups - first > 8 ? 8 : 0;
            CpAsync.Copy8From(ref warp.Aside[at + (warp.Lane * 4)], from, 8);
            CpAsync.Copy8From(ref warp.Aside[at + (warp.Lane * 4) + 2], from + second, second);
            return;
        }
        long scales = a.Scales + ((long)(row >> a.ScaleRowShift) * a.ScaleColumns * sizeof(float));
        int column = chunk * HopperSkinnyGemm.ChunkCodes, last = a.ScaleColumns - 1;
        CpAsync.Copy4From(ref warp.Aside[at + (warp.Lane * 2)], scales + ((long)(column >> a.ScaleColumnShift) * sizeof(float)));
        CpAsync.Copy4From(ref warp.Aside[at + (warp.Lane * 2) + 1], scales + ((long)IntrinsicMath.Min((column + 128) >> a.ScaleColumnShift, last) * sizeof(float)));
    }

    /// <summary>A lane's part of it.</summary>
    public static void LoadAside<TFormat>(HopperSkinnyWarp warp, int at, ref HopperSkinnyOperands operands)
        where TFormat : struct, IStreamedFormat
    {
        int row = Row<TFormat>(warp.Lane);
        if (TFormat.HasGroupScales)
        {
            int first = at + (row * 4) + (warp.Lane & 3);
            operands.First0 = warp.Aside[first];
            operands.First1 = warp.Aside[first + (RowStep * 4)];
            operands.First2 = warp.Aside[first + (2 * RowStep * 4)];
            operands.First3 = warp.Aside[first + (3 * RowStep * 4)];
            return;
        }
        U2 pair = Mem.LoadShared2(ref warp.Aside[at + (row * 2)]);
        operands.First0 = pair.X;
        operands.Second0 = pair.Y;
        pair = Mem.LoadShared2(ref warp.Aside[at + ((row + RowStep) * 2)]);
        operands.First1 = pair.X;
        operands.Second1 = pair.Y;
        pair = Mem.LoadShared2(ref warp.Aside[at + ((row + (2 * RowStep)) * 2)]);
        operands.First2 = pair.X;
        operands.Second2 = pair.Y;
        pair = Mem.LoadShared2(ref warp.Aside[at + ((row + (3 * RowStep)) * 2)]);
        operands.First3 = pair.X;
        operands.Second3 = pair.Y;
    }

    /// <summary>What comes straight from memory, a chunk ahead: zero points. Behind the run's end those of a chunk before.</summary>
    public static HopperSkinnyOperands LoadAhead<TFormat>(HopperSkinnyArgs a, HopperSkinnyWarp warp, HopperSkinnyRun unit)
        where TFormat : struct, IStreamedFormat
    {
        HopperSkinnyOperands operands = default;
        if (TFormat.HasZeroPoints)
        {
            int row = (IntrinsicMath.Min(unit.Tile, a.Tiles - 1) * HopperSkinnyGemm.Rows) + Row<TFormat>(warp.Lane), block = (unit.Chunk * HopperSkinnyGemm.ChunkCodes) >> a.ScaleColumnShift;
            operands.Zeros0 = Zeros(a, row, block);
            operands.Zeros1 = Zeros(a, row + RowStep, block);
            operands.Zeros2 = Zeros(a, row + (2 * RowStep), block);
            operands.Zeros3 = Zeros(a, row + (3 * RowStep), block);
        }
        return operands;
    }

    /// <summary>Products of a chunk's first words and the first step of the second ones: part of every word. Gives the sums that <see cref="MultiplyRest"/> goes on with.</summary>
    public static SkinnyAccumulators MultiplyUntilLoaded<TFormat, TTiles>(uint x, HopperSkinnyCodes codes, HopperSkinnyOperands operands, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        SkinnyAccumulators parts = TFormat.HasRowScales ? default : sums;
        U4 prepared = Prepare<TFormat>(operands, 0);
        Step<TFormat, TTiles>(x, codes.First0, codes.First1, codes.First2, codes.First3, 0, prepared, ref parts);
        Rest<TFormat, TTiles>(x, codes.First0, codes.First1, codes.First2, codes.First3, prepared, ref parts);
        if (TFormat.HasRowScales)
        {
            Fold<TFormat, TTiles>(parts, (operands.First0, operands.First1, operands.First2, operands.First3), ref sums);
            parts = default;
        }
        Step<TFormat, TTiles>(x + Half<TTiles>(), codes.Second0, codes.Second1, codes.Second2, codes.Second3, 0, PrepareSecond<TFormat>(operands), ref parts);
        return parts;
    }

    /// <summary>The other products, and the chunk's end.</summary>
    public static void MultiplyRest<TFormat, TTiles>(uint x, HopperSkinnyCodes codes, HopperSkinnyOperands operands, SkinnyAccumulators parts, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        Rest<TFormat, TTiles>(x + Half<TTiles>(), codes.Second0, codes.Second1, codes.Second2, codes.Second3, PrepareSecond<TFormat>(operands), ref parts);
        if (!TFormat.HasRowScales)
        {
            sums = parts;
            return;
        }
        Fold<TFormat, TTiles>(parts, (operands.Second0, operands.Second1, operands.Second2, operands.Second3), ref sums);
    }

    // Bytes of the inputs of a chunk's first words.
    private static uint Half<TTiles>()
        where TTiles : struct, ITiles => (uint)(HopperSkinnyInputs.StepsOfWord * HopperSkinnyInputs.StepBytes<TTiles>());

    private static U4 PrepareSecond<TFormat>(HopperSkinnyOperands operands)
        where TFormat : struct, IStreamedFormat => Prepare<TFormat>(operands, TFormat.HasGroupScales ? 16 : 4);

    private static uint Zeros(HopperSkinnyArgs a, int row, int block)
    {
        int within = IntrinsicMath.Min(row, a.N - 1) >> a.ScaleRowShift, bytes = (a.ScaleColumns + 1) >> 1;
        uint pair = Mem.LoadReadOnlyByte(a.ZeroPoints + ((long)within * bytes) + IntrinsicMath.Min(block >> 1, bytes - 1));
        // Wider groups than half a chunk have one for both halves.
        uint own = (pair >> (4 * (block & 1))) & 15;
        return a.ScaleColumnShift > 7 ? own * 17 : pair;
    }

    // The groups' multipliers or the zero points of the first words, or by a shift the second ones', as the decoder wants them.
    private static U4 Prepare<TFormat>(HopperSkinnyOperands operands, int shift)
        where TFormat : struct, IStreamedFormat
    {
        U4 prepared = default;
        if (TFormat.HasGroupScales)
        {
            prepared.X = TFormat.PrepareOperand((operands.First0 >> shift) & 0xFFFF);
            prepared.Y = TFormat.PrepareOperand((operands.First1 >> shift) & 0xFFFF);
            prepared.Z = TFormat.PrepareOperand((operands.First2 >> shift) & 0xFFFF);
            prepared.W = TFormat.PrepareOperand((operands.First3 >> shift) & 0xFFFF);
        }
        if (TFormat.HasZeroPoints)
        {
            prepared.X = TFormat.PrepareOperand((operands.Zeros0 >> shift) & 15);
            prepared.Y = TFormat.PrepareOperand((operands.Zeros1 >> shift) & 15);
            prepared.Z = TFormat.PrepareOperand((operands.Zeros2 >> shift) & 15);
            prepared.W = TFormat.PrepareOperand((operands.Zeros3 >> shift) & 15);
        }
        return prepared;
    }

    // All steps of four words but the first.
    private static void Rest<TFormat, TTiles>(uint x, U4 row0, U4 row1, U4 row2, U4 row3, U4 operands, ref SkinnyAccumulators parts)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        uint step = (uint)HopperSkinnyInputs.StepBytes<TTiles>();
        Step<TFormat, TTiles>(x + step, row0, row1, row2, row3, 1, operands, ref parts);
        Step<TFormat, TTiles>(x + (2 * step), row0, row1, row2, row3, 2, operands, ref parts);
        Step<TFormat, TTiles>(x + (3 * step), row0, row1, row2, row3, 3, operands, ref parts);
    }

    // Eight codes of each row.
    private static void Step<TFormat, TTiles>(uint x, U4 row0, U4 row1, U4 row2, U4 row3, int step, U4 operands, ref SkinnyAccumulators parts)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        U4 x0 = SharedWindow.Load(x), x1 = default;
        if (TTiles.Count == 2)
            x1 = SharedWindow.Load(x + HopperSkinnyInputs.TileBytes);
        U4 upper = TFormat.Decode(row0, step, operands.X), lower = TFormat.Decode(row1, step, operands.Y);
        parts.Upper0 = Multiply<TFormat>(upper, lower, x0, parts.Upper0);
        if (TTiles.Count == 2)
            parts.Upper1 = Multiply<TFormat>(upper, lower, x1, parts.Upper1);
        upper = TFormat.Decode(row2, step, operands.Z);
        lower = TFormat.Decode(row3, step, operands.W);
        parts.Lower0 = Multiply<TFormat>(upper, lower, x0, parts.Lower0);
        if (TTiles.Count == 2)
            parts.Lower1 = Multiply<TFormat>(upper, lower, x1, parts.Lower1);
    }

    private static F4 Multiply<TFormat>(U4 upper, U4 lower, U4 x, F4 part)
        where TFormat : struct, IStreamedFormat
    {
        part = SkinnyProducts.Multiply<TFormat>(upper.X, lower.X, upper.Y, lower.Y, x.X, x.Y, part);
        return SkinnyProducts.Multiply<TFormat>(upper.Z, lower.Z, upper.W, lower.W, x.Z, x.W, part);
    }

    private static void Fold<TFormat, TTiles>(SkinnyAccumulators parts, (uint Row0, uint Row1, uint Row2, uint Row3) scales, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        float scale0 = Interop.IntAsFloat(scales.Row0) * TFormat.Correction, scale1 = Interop.IntAsFloat(scales.Row1) * TFormat.Correction;
        float scale2 = Interop.IntAsFloat(scales.Row2) * TFormat.Correction, scale3 = Interop.IntAsFloat(scales.Row3) * TFormat.Correction;
        sums.Upper0 = Fold(sums.Upper0, parts.Upper0, scale0, scale1);
        sums.Lower0 = Fold(sums.Lower0, parts.Lower0, scale2, scale3);
        if (TTiles.Count == 2)
        {
            sums.Upper1 = Fold(sums.Upper1, parts.Upper1, scale0, scale1);
            sums.Lower1 = Fold(sums.Lower1, parts.Lower1, scale2, scale3);
        }
    }

    private static F4 Fold(F4 sum, F4 part, float upper, float lower)
    {
        sum.X = Fast.Fma(part.X, upper, sum.X);
        sum.Y = Fast.Fma(part.Y, upper, sum.Y);
        sum.Z = Fast.Fma(part.Z, lower, sum.Z);
        sum.W = Fast.Fma(part.W, lower, sum.W);
        return sum;
    }
}
