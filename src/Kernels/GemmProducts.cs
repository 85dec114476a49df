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

/// <summary>A warp's fragments of one step of 16 columns: up to 64 rows of x, 16 a field, and up to 64 of W.</summary>
internal struct GemmOperands
{
    public GemmFragments X, W;
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

    /// <summary>BF16 weights: the operands of 16 columns, step 0..3 of the 64 that begin <paramref name="inputs"/> and <paramref name="weights"/> bytes behind the lane's first.</summary>
    public static GemmOperands Operands<TWarp>(ArrayView<byte> shared, GemmPlace place, int inputs, int weights, int step)
        where TWarp : struct, IGemmWarp<TWarp>
    {
        const int PairBytes = 16 * GemmCopies.RowBytes;
        GemmOperands operands = default;
        operands.W = Fragments<TWarp>(shared, place, weights, step);
        ArrayView<ushort> x = Rows(shared, inputs, place.Input, step);
        operands.X.Row0 = LdMatrix.X4At(ref x[0], 0);
        if (TWarp.InputTiles > 2)
            operands.X.Row1 = LdMatrix.X4At(ref x[0], PairBytes);
        if (TWarp.InputTiles > 4)
        {
            operands.X.Row2 = LdMatrix.X4At(ref x[0], 2 * PairBytes);
            operands.X.Row3 = LdMatrix.X4At(ref x[0], 3 * PairBytes);
        }
        return operands;
    }

    /// <summary>The lane's address of one of four steps of 32 bytes, in rows of 128 bytes; so <paramref name="start"/> is a multiple of 128.</summary>
    public static ArrayView<ushort> Rows(ArrayView<byte> shared, int start, int place, int step) =>
        shared.SubView((start + place) ^ (step * 32), 16).Cast<ushort>();

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

    /// <summary>Codes of four columns of a lane's 16 as the operands of a step.</summary>
    public static GemmFragments Decode<TFormat, TWarp>(GemmCodes codes, int step)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
    {
        GemmFragments w = default;
        w.Row0 = Join(TFormat.Decode(codes.Upper0, step, codes.UpperOperand0), TFormat.Decode(codes.Lower0, step, codes.LowerOperand0));
        if (TWarp.WeightTiles > 1)
            w.Row1 = Join(TFormat.Decode(codes.Upper1, step, codes.UpperOperand1), TFormat.Decode(codes.Lower1, step, codes.LowerOperand1));
        return w;
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
