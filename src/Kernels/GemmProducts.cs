using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Where a lane's operands are in a stage: bytes from its beginning, and what decoding takes from global memory.</summary>
internal struct GemmPlace
{
    /// <summary>The lane's unit of x in the first 64 columns; other units are this one with bits exchanged.</summary>
    public int Input;

    /// <summary>The lane's unit or codes of W.</summary>
    public int Weight;

    /// <summary>The row of the tile that is the lane's in the warp's first fragment of W.</summary>
    public int WeightRow;

    /// <summary>The first of the lane's 16 columns of 64.</summary>
    public int Column;
}

/// <summary>The multiplications of one stage of <see cref="Gemm"/>.</summary>
internal static class GemmProducts
{
    /// <summary>A lane's places.</summary>
    public static GemmPlace Locate<TFormat, TTile, TStages, TWarp>()
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
    {
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5, shift = GemmSizes<TFormat, TTile, TStages, TWarp>.WarpsShift;
        int firstInput = (warp >> shift) * TWarp.InputTiles * 8, firstWeight = (warp & ((1 << shift) - 1)) * TWarp.WeightTiles * 16;
        return Locate<TFormat>(lane, firstInput, firstWeight, GemmSizes<TFormat, TTile, TStages, TWarp>.InputBytes);
    }

    /// <summary>The places of a lane whose warp has the rows of x and of W from these on; rows of W begin <paramref name="weights"/> bytes behind those of x.</summary>
    public static GemmPlace Locate<TFormat>(int lane, int firstInput, int firstWeight, int weights)
        where TFormat : struct, ITiledFormat
    {
        GemmPlace place;
        if (TFormat.CodesPerWordShift == 1)
        {
            // ldmatrix: lanes name rows of 16 bytes. x: 8 rows at k and k + 8, then the next 8; W: 16 rows at k, then at k + 8.
            int last = lane & 7;
            place.Input = ((firstInput + last + ((lane >> 4) * 8)) * GemmCopies.RowBytes) + ((((lane >> 3) & 1) ^ last) * 16);
            place.Weight = weights + ((firstWeight + (lane & 15)) * GemmCopies.RowBytes) + (((lane >> 4) ^ last) * 16);
            place.WeightRow = firstWeight;
            place.Column = 0;
            return place;
        }
        // Lane (g, t) multiplies the columns 16t … 16t + 15: units 2t and 2t + 1 of row g of x, and as many codes of row g of W.
        int group = lane >> 2, quarter = lane & 3, rowShift = 8 - TFormat.CodesPerWordShift;
        place.Input = ((firstInput + group) * GemmCopies.RowBytes) + (((2 * quarter) ^ group) * 16);
        place.Weight = weights + ((firstWeight + group) << rowShift) + (quarter << (rowShift - 2));
        place.WeightRow = firstWeight + group;
        place.Column = quarter * 16;
        return place;
    }

    /// <summary>BF16 weights: 16 columns, step 0..3 of the 64 that begin <paramref name="inputs"/> and <paramref name="weights"/> bytes behind the lane's first.</summary>
    public static void Step<TFormat, TWarp>(ArrayView<byte> shared, GemmPlace place, int inputs, int weights, int step, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp> =>
        TWarp.Step<TFormat>(ref sums, Rows(shared, inputs, place.Input, step), 0, Fragments<TWarp>(shared, place, weights, step));

    /// <summary>The lane's address of one of four steps of 32 bytes, in rows of 128 bytes.</summary>
    public static ArrayView<ushort> Rows(ArrayView<byte> shared, int start, int place, int step) =>
        shared.Cast<ushort>().SubView((start + (place ^ (step * 32))) >> 1, 8);

    /// <summary>The warp's fragments of W of such a step.</summary>
    public static GemmFragments Fragments<TWarp>(ArrayView<byte> shared, GemmPlace place, int weights, int step)
        where TWarp : struct, IGemmWarp<TWarp>
    {
        const int FragmentBytes = 16 * GemmCopies.RowBytes;
        ArrayView<ushort> codes = Rows(shared, weights, place.Weight, step);
        GemmFragments w = default;
        w.Row0 = LdMatrix.X4At(ref codes[0], 0);
        if (TWarp.WeightTiles > 1)
            w.Row1 = LdMatrix.X4At(ref codes[0], FragmentBytes);
        if (TWarp.WeightTiles > 2)
        {
            w.Row2 = LdMatrix.X4At(ref codes[0], 2 * FragmentBytes);
            w.Row3 = LdMatrix.X4At(ref codes[0], 3 * FragmentBytes);
        }
        return w;
    }

    /// <summary>Codes, at most 32 rows a warp: the 64 columns at a place of the matrix and of the stage.</summary>
    public static void Chunk<TFormat, TTile, TWarp, TEpilogue>(LinearArgs a, ArrayView<byte> shared, GemmPlace place, GemmSource source, (int Inputs, int Weights) at, (int Slab, int K) from, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TWarp : struct, IGemmWarp<TWarp>
        where TEpilogue : struct, IGemmEpilogue
    {
        ArrayView<uint> words = shared.Cast<uint>();
        ArrayView<uint> codes = words.SubView((at.Weights + place.Weight) >> 2, 2);
        ArrayView<uint> even = words.SubView((at.Inputs + place.Input) >> 2, 4), odd = words.SubView((at.Inputs + (place.Input ^ 16)) >> 2, 4);
        int k = from.K + place.Column;
        GemmChunk w = default;
        GemmCodes row = Decode<TFormat, TTile, TEpilogue>(a, codes, 0, (source.FirstColumn, place.WeightRow), (from.Slab, k), ref w.Scales.Upper0, ref w.Scales.Lower0);
        w.Step0.Row0 = row.Step0;
        w.Step1.Row0 = row.Step1;
        w.Step2.Row0 = row.Step2;
        w.Step3.Row0 = row.Step3;
        if (TWarp.WeightTiles > 1)
        {
            row = Decode<TFormat, TTile, TEpilogue>(a, codes, 1, (source.FirstColumn, place.WeightRow), (from.Slab, k), ref w.Scales.Upper1, ref w.Scales.Lower1);
            w.Step0.Row1 = row.Step0;
            w.Step1.Row1 = row.Step1;
            w.Step2.Row1 = row.Step2;
            w.Step3.Row1 = row.Step3;
        }
        TWarp.Chunk<TFormat>(ref sums, even, odd, 0, w);
    }

    // The lane's codes of the rows g and g + 8 of a fragment, as the operands of four steps.
    private static GemmCodes Decode<TFormat, TTile, TEpilogue>(LinearArgs a, ArrayView<uint> codes, int fragment, (int Column, int Row) first, (int Slab, int K) from, ref float upperScale, ref float lowerScale)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TEpilogue : struct, IGemmEpilogue
    {
        uint upperOperand = 0, lowerOperand = 0;
        if (TFormat.HasOperands || TFormat.HasRowScales)
        {
            // Codes beyond K are zeros: any scale will do.
            int k = IntrinsicMath.Min(from.K, a.K - 1);
            int n = GemmOutput.WeightRow<TTile, TEpilogue>(first.Row + (fragment * 16), first.Column, a.N);
            int next = GemmOutput.WeightRow<TTile, TEpilogue>(first.Row + (fragment * 16) + 8, first.Column, a.N);
            if (TFormat.HasOperands)
            {
                upperOperand = TFormat.Operand(a.ScaleTable, from.Slab, n, k);
                lowerOperand = TFormat.Operand(a.ScaleTable, from.Slab, next, k);
            }
            if (TFormat.HasRowScales)
            {
                ArrayView<uint> scales = a.Scales.Cast<uint>();
                upperScale = Interop.IntAsFloat(Mem.LoadReadOnly1(ref scales[a.ScaleIndex(from.Slab, n, k)]));
                lowerScale = Interop.IntAsFloat(Mem.LoadReadOnly1(ref scales[a.ScaleIndex(from.Slab, next, k)]));
            }
        }
        return Decode<TFormat>(codes, fragment, upperOperand, lowerOperand);
    }

    /// <summary>The same with the operands of both rows.</summary>
    public static GemmCodes Decode<TFormat>(ArrayView<uint> codes, int fragment, uint upperOperand, uint lowerOperand)
        where TFormat : struct, ITiledFormat
    {
        int rowShift = 8 - TFormat.CodesPerWordShift;
        U4 upper = Load<TFormat>(codes, (fragment * 16) << rowShift), lower = Load<TFormat>(codes, ((fragment * 16) + 8) << rowShift);
        GemmCodes decoded;
        decoded.Step0 = Join(TFormat.Decode(upper, 0, upperOperand), TFormat.Decode(lower, 0, lowerOperand));
        decoded.Step1 = Join(TFormat.Decode(upper, 1, upperOperand), TFormat.Decode(lower, 1, lowerOperand));
        decoded.Step2 = Join(TFormat.Decode(upper, 2, upperOperand), TFormat.Decode(lower, 2, lowerOperand));
        decoded.Step3 = Join(TFormat.Decode(upper, 3, upperOperand), TFormat.Decode(lower, 3, lowerOperand));
        return decoded;
    }

    private static U4 Load<TFormat>(ArrayView<uint> codes, int bytes)
        where TFormat : struct, ITiledFormat
    {
        if (TFormat.CodesPerWordShift == 2)
            return Mem.LoadSharedAt(ref codes[0], bytes);
        U2 half = Mem.LoadShared2At(ref codes[0], bytes);
        U4 word = default;
        word.X = half.X;
        word.Y = half.Y;
        return word;
    }

    /// <summary>MmaFragment's A: rows g and g + 8 with the first pair of columns, then with the second.</summary>
    public static U4 Join(U2 upper, U2 lower)
    {
        U4 operand;
        operand.X = upper.X;
        operand.Y = lower.X;
        operand.Z = upper.Y;
        operand.W = lower.Y;
        return operand;
    }
}
