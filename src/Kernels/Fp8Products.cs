using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A lane's addresses of the codes of x in the steps of a chunk, and of its rows' multipliers.</summary>
internal struct Fp8Inputs
{
    public ArrayView<ushort> Step0, Step1, Step2, Step3;
    public ArrayView<uint> Scales;
}

/// <summary>
/// A turn of <see cref="Gemm"/> with E4M3 codes on both sides: 128 columns, whose sums are multiplied by the multiplier of their row of x
/// times that of their block of W and added to the totals, in float32.
/// </summary>
/// <remarks>
/// Codes are moved in pairs, as if a pair were a BF16 number: rows of 128 bytes, the same exchange of units, the same
/// fragments by ldmatrix; <see cref="LinearArgs.K"/> counts pairs. Tensor cores take the fragments as they are or, half a turn at a time, decoded.
/// Multipliers arrive with the codes, since a lane needs those of many rows of x; 32 rows of W, the most that a warp has, share one.
/// </remarks>
internal static class Fp8Products
{
    /// <summary>Rows of W that must share a multiplier.</summary>
    public const int WeightRows = 32;

    /// <summary>Columns that must share a multiplier.</summary>
    public const int Columns = 128;

    private const int WeightRowsShift = 5, PairsShift = 6;

    /// <summary>Requests the multipliers of a turn; <paramref name="k"/> counts pairs.</summary>
    public static void RequestScales<TFormat, TTile, TStages, TWarp, TEpilogue>(LinearArgs a, ArrayView<byte> shared, GemmSource source, int stage, int k)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TEpilogue : struct, IGemmEpilogue
    {
        ArrayView<uint> target = shared.SubView(Start<TFormat, TTile, TStages, TWarp>(stage), (TTile.M * sizeof(float)) + (TTile.N >> 3)).Cast<uint>();
        int i = Group.IdxX;
        // Past the last turn the last multipliers once more: nobody reads them.
        if (i < TTile.M)
        {
            ArrayView<int> rows = shared.SubView(GemmSizes<TFormat, TTile, TStages, TWarp>.RowsStart + (TTile.M * sizeof(int)), TTile.M * sizeof(int)).Cast<int>();
            // A row's number, since there are no experts here; all ones for a row that is none.
            int row = rows[i], none = row >> 31;
            long index = ((long)(row & ~none) * a.InputScales.Columns) + IntrinsicMath.Min(k >> PairsShift, a.InputScales.Columns - 1);
            CpAsync.Copy4ZeroFill(ref target[i], ref a.InputScales.Blocks.Cast<uint>()[index], sizeof(float) & ~none);
        }
        if (i < TTile.N >> WeightRowsShift)
        {
            int row = GemmOutput.WeightRow<TTile, TEpilogue>(i << WeightRowsShift, source.FirstColumn, a.N);
            CpAsync.Copy4ZeroFill(ref target[TTile.M + i], ref a.Scales.Cast<uint>()[a.ScaleIndex(source.Slab, row, 2 * IntrinsicMath.Min(k, a.K - 1))], sizeof(float));
        }
    }

    /// <summary>The products of one stage.</summary>
    public static void Turn<TFormat, TTile, TStages, TWarp>(ArrayView<byte> shared, GemmPlace place, int stage, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
    {
        int start = stage * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes, scales = Start<TFormat, TTile, TStages, TWarp>(stage);
        int firstInput = ((Group.IdxX >> 5) >> GemmSizes<TFormat, TTile, TStages, TWarp>.WarpsShift) * TWarp.InputTiles * 8;
        Fp8Inputs x;
        x.Step0 = GemmProducts.Rows(shared, start, place.Input, 0);
        x.Step1 = GemmProducts.Rows(shared, start, place.Input, 1);
        x.Step2 = GemmProducts.Rows(shared, start, place.Input, 2);
        x.Step3 = GemmProducts.Rows(shared, start, place.Input, 3);
        x.Scales = shared.SubView(scales + ((firstInput + MmaFragment.CColumn(Group.IdxX & 31, 0)) * sizeof(float)), 2 * sizeof(float)).Cast<uint>();
        GemmChunk w = default;
        w.Scales.Upper0 = Interop.IntAsFloat(shared.Cast<uint>()[(scales >> 2) + TTile.M + (place.WeightRow >> WeightRowsShift)]);
        if (TFormat.Operands == TiledOperands.Fp8)
        {
            w.Step0 = GemmProducts.Fragments<TWarp>(shared, place, start, 0);
            w.Step1 = GemmProducts.Fragments<TWarp>(shared, place, start, 1);
            w.Step2 = GemmProducts.Fragments<TWarp>(shared, place, start, 2);
            w.Step3 = GemmProducts.Fragments<TWarp>(shared, place, start, 3);
            TWarp.Codes<TFormat>(ref sums, x, 0, w);
            return;
        }
        Decode<TFormat>(GemmProducts.Fragments<TWarp>(shared, place, start, 0), ref w.Step0, ref w.Step1);
        Decode<TFormat>(GemmProducts.Fragments<TWarp>(shared, place, start, 1), ref w.Step2, ref w.Step3);
        TWarp.Codes<TFormat>(ref sums, x, 0, w);
        x.Step0 = x.Step2;
        x.Step1 = x.Step3;
        Decode<TFormat>(GemmProducts.Fragments<TWarp>(shared, place, start, 2), ref w.Step0, ref w.Step1);
        Decode<TFormat>(GemmProducts.Fragments<TWarp>(shared, place, start, 3), ref w.Step2, ref w.Step3);
        TWarp.Codes<TFormat>(ref sums, x, 0, w);
    }

    /// <summary>What multiplies the sums of the two fragments of x at this place: the lane's two rows of each.</summary>
    public static F4 Scales(Fp8Inputs x, int bytes, float weights)
    {
        // Eight rows are 1,024 bytes of codes and 32 of multipliers.
        const int BytesShift = 5, NextFragment = 8 * sizeof(float);
        U2 first = Mem.LoadShared2At(ref x.Scales[0], bytes >> BytesShift), second = Mem.LoadShared2At(ref x.Scales[0], (bytes >> BytesShift) + NextFragment);
        F4 scales;
        scales.X = Interop.IntAsFloat(first.X) * weights;
        scales.Y = Interop.IntAsFloat(first.Y) * weights;
        scales.Z = Interop.IntAsFloat(second.X) * weights;
        scales.W = Interop.IntAsFloat(second.Y) * weights;
        return scales;
    }

    private static int Start<TFormat, TTile, TStages, TWarp>(int stage)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp> =>
        (stage * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes) + GemmSizes<TFormat, TTile, TStages, TWarp>.OperandBytes;

    // 32 columns of codes are two steps of 16: of the four codes that a register holds, half are a pair of the first 8 columns and half one of the second.
    private static void Decode<TFormat>(GemmFragments codes, ref GemmFragments first, ref GemmFragments second)
        where TFormat : struct, ITiledFormat
    {
        first.Row0 = Decode<TFormat>(codes.Row0.X, codes.Row0.Y);
        second.Row0 = Decode<TFormat>(codes.Row0.Z, codes.Row0.W);
        first.Row1 = Decode<TFormat>(codes.Row1.X, codes.Row1.Y);
        second.Row1 = Decode<TFormat>(codes.Row1.Z, codes.Row1.W);
    }

    private static U4 Decode<TFormat>(uint upper, uint lower)
        where TFormat : struct, ITiledFormat
    {
        U4 codes = default;
        codes.X = upper;
        codes.Y = lower;
        return GemmProducts.Join(TFormat.Decode(codes, 0, 0), TFormat.Decode(codes, 1, 0));
    }
}
