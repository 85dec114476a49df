using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Matrix products on tensor cores through a pipeline in shared memory: y[m, n] = Σ_k x[m, k] · W[n, k], BF16 operands, float32
/// accumulators.
/// </summary>
/// <remarks>
/// A block computes a tile of y. Stages of 64 or 128 columns of x and W arrive by asynchronous copies, several ahead of the
/// one that is multiplied; weights arrive as they are stored and are decoded in the registers of the lane that multiplies them
/// (docs/kernels/gemm.md has pictures). W is the 16-row operand of the mma and x the 8-column one. What 64 columns add to a row
/// is folded into the total with the multiplier of their scale block, so codes are multiplied exactly. NVFP4's group scales are multiplied
/// into the codes, exactly too, and the matrix's scale at the end. A format of two terms goes along K twice. Where x is of codes, too, a turn is
/// of as many columns as 128 bytes hold (<see cref="Fp8Products"/>, <see cref="Nvfp4Products"/>).
/// The order of summation depends on K and format only.
/// </remarks>
internal static class Gemm
{
    /// <summary>Columns of W that must share a scale, in formats that fold.</summary>
    public const int FoldColumns = 64;

    /// <summary>Tiles along M that run beside each other before the next along N: their x and W fit in L2 together.</summary>
    public const int Rasterisation = 8;

    /// <summary>Elements of x and of one matrix: places of rows are counted in 16-byte words, of eight elements or more, by 32 bits.</summary>
    public const long MostElements = 1L << 34;

    public static void Run<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(LinearArgs a)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TRows : struct, IRowMap
        where TEpilogue : struct, IGemmEpilogue
    {
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int columns = GemmOutput.Columns<TTile, TEpilogue>(), width = TEpilogue.IsGated ? a.N >> 1 : a.N;
        int across = (width + columns - 1) >> GemmSizes.Log2(columns);
        (int tile, int column) = Place(Grid.IdxX, Grid.DimX / across, across);
        Tile<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, shared, tile, column * columns);
    }

    /// <summary>
    /// The same of one matrix and without gates, where the last tiles, which are too few for all multiprocessors, are each taken apart: <see cref="LinearArgs.WholeTiles"/> blocks have a tile, those behind them a
    /// part of one.
    /// </summary>
    public static void RunInParts<TFormat, TTile, TStages, TWarp, TPart, TPartStages, TPartWarp, TEpilogue>(LinearArgs a)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TPart : struct, IGemmTile
        where TPartStages : struct, IGemmStages
        where TPartWarp : struct, IGemmWarp<TPartWarp>
        where TEpilogue : struct, IGemmEpilogue
    {
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int rowShift = GemmSizes.Log2(TTile.M), columnShift = GemmSizes.Log2(TTile.N);
        int down = (a.M + TTile.M - 1) >> rowShift, across = (a.N + TTile.N - 1) >> columnShift;
        if (Grid.IdxX < a.WholeTiles)
        {
            (int tile, int column) = Place(Grid.IdxX, down, across);
            Tile<TFormat, TTile, TStages, TWarp, OneMatrix, TEpilogue>(a, shared, tile, column << columnShift);
        }
        else
        {
            int downShift = rowShift - GemmSizes.Log2(TPart.M), acrossShift = columnShift - GemmSizes.Log2(TPart.N);
            int part = Grid.IdxX - a.WholeTiles, within = part & ((1 << (downShift + acrossShift)) - 1);
            (int tile, int column) = Place(a.WholeTiles + (part >> (downShift + acrossShift)), down, across);
            int firstColumn = (column << columnShift) + ((within & ((1 << acrossShift) - 1)) << GemmSizes.Log2(TPart.N));
            Tile<TFormat, TPart, TPartStages, TPartWarp, OneMatrix, TEpilogue>(a, shared, (tile << downShift) + (within >> acrossShift), firstColumn);
        }
    }

    private static void Tile<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(LinearArgs a, ArrayView<byte> shared, int tile, int firstColumn)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TRows : struct, IRowMap
        where TEpilogue : struct, IGemmEpilogue
    {
        GemmRows range = GemmRows.Find<TRows>(a, tile, GemmSizes.Log2(TTile.M));
        if (range.Slab < 0)
            return;
        ArrayView<int> rows = shared.SubView(GemmSizes<TFormat, TTile, TStages, TWarp>.RowsStart, TTile.M * 2 * sizeof(int)).Cast<int>();
        for (int i = Group.IdxX; i < TTile.M; i += Group.DimX)
        {
            int row = range.Row<TRows>(a, i);
            rows[i] = row;
            // Rows of an expert where they begin in x, in units of 16 bytes; one matrix's are in order.
            rows[TTile.M + i] = TRows.IsGrouped && row >= 0 ? row / a.RowsPerInput * (a.K >> 3) : row;
        }
        // The row lists are complete before anyone copies by them.
        Block.Barrier();
        GemmSource source;
        source.Slab = range.Slab * TFormat.Terms;
        source.FirstColumn = firstColumn;
        TWarp sums = default;
        if (a.K > 0)
            Multiply<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, shared, source, ref sums);
        GemmOutput.Store<TFormat, TTile, TStages, TWarp, TEpilogue>(a, shared, sums, source);
    }

    // Blocks in the order of their numbers run down a group of tiles along M, then the next along N.
    private static (int Tile, int Column) Place(int block, int down, int across)
    {
        int inGroup = Rasterisation * across;
        int group = block / inGroup, within = block - (group * inGroup);
        int first = group * Rasterisation, size = IntrinsicMath.Min(down - first, Rasterisation);
        int column = within / size;
        return (first + (within - (column * size)), column);
    }

    private static void Multiply<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(LinearArgs a, ArrayView<byte> shared, GemmSource source, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TRows : struct, IRowMap
        where TEpilogue : struct, IGemmEpilogue
    {
        int turns = (a.K + TTile.K - 1) >> GemmSizes.Log2(TTile.K);
        GemmPlace place = GemmProducts.Locate<TFormat, TTile, TStages, TWarp>();
        GemmCopy copy = GemmCopies.Locate<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, shared, source);
        for (int ahead = 0; ahead < TStages.Count - 1; ahead++)
        {
            (int slab, int k) = At<TFormat, TTile>(source, ahead, turns);
            Request<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, copy, shared, source, ahead, (slab, k));
        }
        if (TFormat.CodesPerWordShift == 1 && TFormat.Operands == TiledOperands.Bf16)
            GemmValueTurns.Multiply<TFormat, TTile, TStages, TWarp, TRows>(a, copy, shared, source.Slab, place, ref sums);
        else if (TFormat.Operands == TiledOperands.Bf16)
            GemmCodeTurns.Multiply<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, copy, shared, source, place, turns, ref sums);
        else
            MultiplyCodes<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, shared, source, place, turns, ref sums);
        // The stages become y's tile: no copy may be on its way, no fragment unread.
        CpAsync.WaitAll();
        Block.Barrier();
    }

    private static void MultiplyCodes<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(LinearArgs a, ArrayView<byte> shared, GemmSource source, GemmPlace place, int turns, ref TWarp sums)
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
            Block.Barrier();
            // Found every turn: sums and two sets of operands leave no registers for what could be kept.
            GemmCopy copy = GemmCopies.Locate<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, shared, source);
            Request<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(a, copy, shared, source, empty, At<TFormat, TTile>(source, turn + TStages.Count - 1, turns));
            if (TFormat.Operands == TiledOperands.Nvfp4)
                Nvfp4Products.Turn<TFormat, TTile, TStages, TWarp>(shared, place, full, ref sums);
            else
                Fp8Products.Turn<TFormat, TTile, TStages, TWarp>(shared, place, full, ref sums);
            empty = full;
            full = full + 1 == TStages.Count ? 0 : full + 1;
        }
    }

    /// <summary>Requests a turn into a stage.</summary>
    public static void Request<TFormat, TTile, TStages, TWarp, TRows, TEpilogue>(LinearArgs a, GemmCopy copy, ArrayView<byte> shared, GemmSource source, int stage, (int Slab, int K) from)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TRows : struct, IRowMap
        where TEpilogue : struct, IGemmEpilogue
    {
        GemmCopies.Inputs<TFormat, TTile, TStages, TWarp, TRows>(a, copy, shared, stage, from.K);
        GemmCopies.Weights<TFormat, TTile, TStages, TWarp>(a, copy, shared, stage, from.Slab, from.K);
        if (TFormat.Operands == TiledOperands.Nvfp4)
            Nvfp4Products.RequestScales<TFormat, TTile, TStages, TWarp, TEpilogue>(a, shared, source, stage, from.K);
        else if (TFormat.Operands != TiledOperands.Bf16)
            Fp8Products.RequestScales<TFormat, TTile, TStages, TWarp, TEpilogue>(a, shared, source, stage, from.K);
        CpAsync.Commit();
    }

    /// <summary>Where a turn reads; past the last one, beyond K.</summary>
    public static (int Slab, int K) At<TFormat, TTile>(GemmSource source, int turn, int turns)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
    {
        if (TFormat.Terms == 1)
            return (source.Slab, turn * TTile.K);
        int second = turn >= turns ? 1 : 0;
        return (source.Slab + second, (turn - (second * turns)) * TTile.K);
    }
}
