using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What a lane keeps of its rows of W from turn to turn.</summary>
internal struct GemmRescaling
{
    public GemmLaneRows Rows;

    /// <summary>What its sums are in units of: mantissas of scales.</summary>
    public GemmScales Units;

    /// <summary>The scales of the columns that are decoded next.</summary>
    public GemmScales Next;

    /// <summary>Codes, and the powers of two they are multiplied by.</summary>
    public GemmCodes Codes;
}

/// <summary>
/// The loop of <see cref="Gemm"/> over FP8 weights whose products are added to the sums themselves: nothing is summed apart, which leaves registers to products that do not depend on each
/// other. Sums are in units of the scale of the block of columns that is multiplied; when another begins, they are brought to its scale.
/// </summary>
/// <remarks>
/// A scale is mantissa · 2^exponent. The power of two goes into the codes, exactly, and the mantissas alone, which are of like size whatever the scales, are divided by each other. A scale of 0
/// becomes a power of 0 in the units of the block before.
/// With eight warps each scheduler has two, one of the first four and one of the last. Those multiply a turn later than these, from one more stage, so that one decodes while
/// the other multiplies: behind a common barrier both would decode at once, and the tensor cores wait.
/// </remarks>
internal static class GemmRescaledTurns
{
    private const int HalfColumns = 64, FourWarps = 128;

    /// <summary>By how many turns the last four of eight warps multiply later.</summary>
    public static int Late<TFormat, TTile, TStages, TWarp>()
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp> => TFormat.Rescales ? GemmSizes<TFormat, TTile, TStages, TWarp>.ThreadsShift >> 3 : 0;

    /// <summary>The products of all turns; the first stages are on their way.</summary>
    public static void Multiply<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(LinearArgs a, GemmCopy copy, ArrayView<byte> shared, GemmSource source, GemmPlace place, int turns, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TRows : struct, IRowMap
        where TEpilogue : struct, IGemmEpilogue
    {
        GemmRescaling state = default;
        state.Rows = GemmCodeTurns.Rows<TTile, TWarp, TEpilogue>(place.WeightRow, source.FirstColumn, a.N);
        state.Units.Upper0 = state.Units.Lower0 = state.Units.Upper1 = state.Units.Lower1 = 1f;
        state.Next = GemmCodeTurns.Multipliers<TFormat, TWarp>(a, state.Rows, (source.Slab, 0), ref state.Codes);
        if (Late<TFormat, TTile, TStages, TWarp>() == 0)
            Together<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, copy, shared, source, place, turns, ref state, ref sums);
        else if (Group.IdxX < FourWarps)
            Early<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, copy, shared, source, place, turns, ref state, ref sums);
        else
            Lately<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, copy, shared, source, place, turns, ref state, ref sums);
        TWarp.Scale(ref sums, state.Units);
    }

    private static void Together<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(LinearArgs a, GemmCopy copy, ArrayView<byte> shared, GemmSource source, GemmPlace place, int turns, ref GemmRescaling state, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TRows : struct, IRowMap
        where TEpilogue : struct, IGemmEpilogue
    {
        int total = turns * TFormat.Terms, full = 0, empty = TStages.Count - 1;
        for (int turn = 0; turn < total; turn++)
        {
            CpAsync.Wait(TStages.Count - 2);
            // Everyone's copies of this turn are complete, and everyone has read the stage that is filled next.
            Group.Barrier();
            int start = full * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes;
            GemmUnitRows inputs = GemmCodeTurns.UnitRows(shared, start + place.Input);
            GemmCodeTurns.LoadCodes<TFormat, TWarp>(shared, start + place.Weight, ref state.Codes);
            GemmUnits x = default;
            x.LoadEven(inputs, 0);
            x.LoadOdd(inputs, 0);
            (int slab, int k) = Gemm.At<TFormat, TTile>(source, turn, turns);
            (int Slab, int K) next = Gemm.At<TFormat, TTile>(source, turn + 1, turns);
            GemmChunk w = Decode<TFormat, TWarp>(a, k, TTile.K == 128 ? (slab, k + HalfColumns) : next, ref state, ref sums);
            Gemm.Request<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, copy, shared, source, empty, Gemm.At<TFormat, TTile>(source, turn + TStages.Count - 1, turns));
            TWarp.AllButLast<TFormat>(ref sums, ref x, inputs, 0, w);
            TWarp.Last<TFormat>(ref sums, x, w);
            if (TTile.K == 128)
            {
                GemmCodeTurns.LoadCodes<TFormat, TWarp>(shared, start + (TTile.N << GemmSizes<TFormat, TTile, TStages, TWarp>.CodeRowShift) + place.Weight, ref state.Codes);
                w = Decode<TFormat, TWarp>(a, k + HalfColumns, next, ref state, ref sums);
                Products<TFormat, TWarp>(shared, start + (TTile.M * GemmCopies.RowBytes) + place.Input, w, ref sums);
            }
            empty = full;
            full = full + 1 == TStages.Count ? 0 : full + 1;
        }
    }

    private static void Early<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(LinearArgs a, GemmCopy copy, ArrayView<byte> shared, GemmSource source, GemmPlace place, int turns, ref GemmRescaling state, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TRows : struct, IRowMap
        where TEpilogue : struct, IGemmEpilogue
    {
        int total = turns * TFormat.Terms, full = 0, empty = TStages.Count - 2;
        for (int turn = 0; turn < total; turn++)
        {
            Meet<TStages>();
            int start = full * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes;
            GemmCodeTurns.LoadCodes<TFormat, TWarp>(shared, start + place.Weight, ref state.Codes);
            GemmChunk w = Decode<TFormat, TWarp>(a, Gemm.At<TFormat, TTile>(source, turn, turns).K, Gemm.At<TFormat, TTile>(source, turn + 1, turns), ref state, ref sums);
            Gemm.Request<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, copy, shared, source, empty, Gemm.At<TFormat, TTile>(source, turn + TStages.Count - 2, turns));
            Products<TFormat, TWarp>(shared, start + place.Input, w, ref sums);
            empty = empty + 1 == TStages.Count ? 0 : empty + 1;
            full = full + 1 == TStages.Count ? 0 : full + 1;
        }
        Meet<TStages>();
    }

    private static void Lately<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(LinearArgs a, GemmCopy copy, ArrayView<byte> shared, GemmSource source, GemmPlace place, int turns, ref GemmRescaling state, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TRows : struct, IRowMap
        where TEpilogue : struct, IGemmEpilogue
    {
        int total = turns * TFormat.Terms, full = 0, last = 0, empty = TStages.Count - 2;
        GemmChunk w = default;
        for (int turn = 0; turn <= total; turn++)
        {
            Meet<TStages>();
            Gemm.Request<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, copy, shared, source, empty, Gemm.At<TFormat, TTile>(source, turn + TStages.Count - 2, turns));
            if (turn > 0)
                Products<TFormat, TWarp>(shared, (last * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes) + place.Input, w, ref sums);
            if (turn < total)
            {
                GemmCodeTurns.LoadCodes<TFormat, TWarp>(shared, (full * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes) + place.Weight, ref state.Codes);
                w = Decode<TFormat, TWarp>(a, Gemm.At<TFormat, TTile>(source, turn, turns).K, Gemm.At<TFormat, TTile>(source, turn + 1, turns), ref state, ref sums);
            }
            last = full;
            empty = empty + 1 == TStages.Count ? 0 : empty + 1;
            full = full + 1 == TStages.Count ? 0 : full + 1;
        }
    }

    private static void Meet<TStages>()
        where TStages : struct, IGemmStages
    {
        CpAsync.Wait(TStages.Count - 3);
        // Everyone's copies of this turn are complete; the stage that is filled next is that of the turn before last, which all have multiplied.
        Group.Barrier();
    }

    // The loaded codes of the turn at column k; requests the scales of the next.
    private static GemmChunk Decode<TFormat, TWarp>(LinearArgs a, int k, (int Slab, int K) next, ref GemmRescaling state, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
    {
        Enter<TFormat, TWarp>(a, k, ref state, ref sums);
        GemmChunk w = GemmCodeTurns.Decode<TFormat, TWarp>(state.Codes, state.Next);
        state.Next = GemmCodeTurns.Multipliers<TFormat, TWarp>(a, state.Rows, next, ref state.Codes);
        return w;
    }

    private static void Products<TFormat, TWarp>(ArrayView<byte> shared, int bytes, GemmChunk w, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
    {
        GemmUnitRows inputs = GemmCodeTurns.UnitRows(shared, bytes);
        GemmUnits x = default;
        x.LoadEven(inputs, 0);
        x.LoadOdd(inputs, 0);
        TWarp.AllButLast<TFormat>(ref sums, ref x, inputs, 0, w);
        TWarp.Last<TFormat>(ref sums, x, w);
    }

    // Where a block of scales begins, which is the same for all threads: at multiples of its width.
    private static void Enter<TFormat, TWarp>(LinearArgs a, int k, ref GemmRescaling state, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
    {
        if ((k & ((1 << a.ColumnShift) - 1)) != 0)
            return;
        GemmScales factors = default;
        factors.Upper0 = Enter(state.Next.Upper0, ref state.Units.Upper0, ref state.Codes.UpperOperand0);
        factors.Lower0 = Enter(state.Next.Lower0, ref state.Units.Lower0, ref state.Codes.LowerOperand0);
        if (TWarp.WeightTiles > 1)
        {
            factors.Upper1 = Enter(state.Next.Upper1, ref state.Units.Upper1, ref state.Codes.UpperOperand1);
            factors.Lower1 = Enter(state.Next.Lower1, ref state.Units.Lower1, ref state.Codes.LowerOperand1);
        }
        TWarp.Scale(ref sums, factors);
    }

    // What multiplies the sums of a row, in units of the last block's mantissa so far. The operand is a power of two between 1 and 2^127, which takes 2^120 for decoding: whatever
    // of the scale's exponent is beyond that stays in the mantissa.
    private static float Enter(float scale, ref float unit, ref uint operand)
    {
        const int Decoding = 120, One = 127, Largest = 254;
        int exponent = (int)(Interop.FloatAsInt(scale) >> 23) & 255;
        int power = IntrinsicMath.Min(IntrinsicMath.Max(exponent + Decoding, One), Largest);
        float mantissa = Fast.Mul(scale, Interop.IntAsFloat((uint)(Decoding + (2 * One) - power) << 23)), last = unit;
        bool none = mantissa == 0f;
        operand = none ? 0 : (uint)power * 0x00800080u;
        unit = none ? last : mantissa;
        return Fast.Mul(last, Fast.Rcp(unit));
    }
}
