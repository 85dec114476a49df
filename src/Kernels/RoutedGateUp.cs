using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Eight gate rows of a pair's expert and the up rows beside them: a tile.</summary>
internal struct RoutedUnit
{
    public int Pair, FirstRow, Rows;
}

/// <summary>
/// <see cref="ExpertGateUp"/> for one token that the kernel norms and routes itself, by the copy engine (sm_90): a[p] = silu(Wgate · x) · (Wup · x) with the p-th largest expert of
/// the sums that <see cref="TileLinear"/> left and x = bf16(residual · gain) · rsqrt(mean(residual²) + epsilon).
/// </summary>
/// <remarks>
/// Eight gate rows and the eight up rows beside them are one tile of tensor cores. A block, one a multiprocessor, has several, and room for some of them; all its warps multiply the tile that
/// came first, and the last of them to be done asks for the next one into its place, so that memory never waits. Room is left for a block of the next launch, which is released when the first tiles are asked
/// for, not before: what it asks for would come in between. It may read early what is older than this launch. One warp of the grid writes ids, weights and logits.
/// </remarks>
internal static class RoutedGateUp
{
    /// <summary>Gate rows of a tile.</summary>
    public const int Rows = TileStream.Rows / 2;

    /// <summary>Most tiles of a block that are on their way at once.</summary>
    public const int MostTiles = 4;

    private const int ChoiceStart = TileRow.ScratchBytes;
    private const int RowStart = ChoiceStart + RoutedChoice.Bytes;

    private static int BarrierStart(int k) => RowStart + (2 * k);

    private static int CountStart(int k) => BarrierStart(k) + (MostTiles * sizeof(long));

    private static int PartialStart(int k) => CountStart(k) + (MostTiles * sizeof(int));

    private static int ScaleStart(int k, int warps, int units) => PartialStart(k) + (units * warps * TileStream.Rows * sizeof(float));

    private static int TileStart(int k, int warps, int units, int scales) => (ScaleStart(k, warps, units) + (units * 2 * scales * sizeof(float)) + 15) & ~15;

    /// <summary>Dynamic shared memory of a block with so many units, of whose tiles some are on their way at once.</summary>
    public static int SharedBytes(int k, int warps, (int Units, int Tiles) block, (int Scales, int RowBytes) rows) =>
        TileStart(k, warps, block.Units, rows.Scales) + (block.Tiles * TileStream.Rows * rows.RowBytes);

    public static void Run<TFormat>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int k = a.Weights.K, warps = Group.DimX >> 5;
        ArrayView<uint> row = shared.SubView(RowStart, 2 * k).Cast<uint>();
        ArrayView<int> choice = shared.SubView(ChoiceStart, RoutedChoice.Bytes).Cast<int>(), done = shared.SubView(CountStart(k), MostTiles * sizeof(int)).Cast<int>();
        ArrayView<float> partials = shared.SubView(PartialStart(k), a.Units * warps * TileStream.Rows * sizeof(float)).Cast<float>();
        uint window = SharedWindow.Open(ref shared[0]);
        BulkTile.MakeBarriers(window + (uint)BarrierStart(k), a.Tiles);
        if (Group.IdxX < MostTiles)
            done[Group.IdxX] = 0;
        TileRowGains gains = TileRow.LoadGains(a.Source, k / 2);
        GridDependency.Wait();
        TileRowStates states = TileRow.LoadStates(a.Source, k / 2);
        TileRow.Norm(a.Source, row, shared.Cast<float>(), states, gains);
        RoutedChoice.Make(a.Router, choice, a.TopK);
        Stream<TFormat>(a, shared, row, choice, partials);
        Group.Barrier(); // all sums are there before they are added
        float norm = TileRow.Factor(a.Source, k, shared.Cast<float>());
        Store(a, partials, norm);
        if (Grid.IdxX == 0 && Group.IdxX < 32)
            StoreRouting(a, RoutedChoice.OfWarp(choice, a.TopK), norm);
    }

    private static void Stream<TFormat>(ExpertArgs a, ArrayView<byte> shared, ArrayView<uint> row, ArrayView<int> choice, ArrayView<float> partials)
        where TFormat : struct, IStreamedFormat
    {
        int k = a.Weights.K, warps = Group.DimX >> 5, turn = Group.IdxX >> 5, lane = Group.IdxX & 31, scaleCount = BulkTile.ScaleCount<TFormat>(a.Weights), units = UnitsOf(a);
        uint window = SharedWindow.Open(ref shared[0]), barriers = window + (uint)BarrierStart(k);
        ArrayView<int> done = shared.SubView(CountStart(k), MostTiles * sizeof(int)).Cast<int>();
        BulkTile tile;
        tile.RowBytes = (k >> TFormat.CodesPerWordShift) * sizeof(uint);
        tile.Codes = window + (uint)TileStart(k, warps, a.Units, scaleCount);
        if (Group.IdxX < a.Tiles && Group.IdxX < units)
            Request<TFormat>(a, tile, choice, barriers, (Group.IdxX, Group.IdxX));
        GridDependency.Release();
        ArrayView<float> scales = shared.SubView(ScaleStart(k, warps, a.Units), a.Units * 2 * scaleCount * sizeof(float)).Cast<float>();
        for (int u = turn; u < units; u += warps)
            LoadScales<TFormat>(a, scales, u * 2 * scaleCount, choice, Unit(a, u));
        Group.Barrier(); // scales are there
        int slot = 0;
        uint parity = 0;
        for (int u = 0; u < units; u++)
        {
            Mbarrier.Wait(barriers + (uint)(slot * sizeof(long)), parity);
            BulkTile own = tile;
            own.Codes += (uint)(slot * TileStream.Rows * tile.RowBytes);
            BulkSums sums = Multiply<TFormat>(a, own, row, (scales, u * 2 * scaleCount));
            WarpOps.Barrier(); // no lane reads the tile any more
            if (lane == 0 && u + a.Tiles < units && Atomic.Add(ref done[slot], 1) == warps - 1)
            {
                done[slot] = 0;
                Request<TFormat>(a, tile, choice, barriers, (u + a.Tiles, slot));
            }
            BulkTile.Publish(partials, ((u * warps) + turn) * TileStream.Rows, sums);
            slot++;
            parity ^= slot == a.Tiles ? 1u : 0u;
            slot = slot == a.Tiles ? 0 : slot;
        }
    }

    private static BulkSums Multiply<TFormat>(ExpertArgs a, BulkTile tile, ArrayView<uint> row, (ArrayView<float> Scales, int First) own)
        where TFormat : struct, IStreamedFormat
    {
        int lane = Group.IdxX & 31, warps = Group.DimX >> 5, count = a.Weights.K / TileStream.ChunkCodes<TFormat>();
        BulkSums even = default, odd = default;
        for (int c = Group.IdxX >> 5; c < count; c += 2 * warps)
        {
            TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(row, TileStream.InputWord<TFormat>(lane), c);
            even = tile.Multiply<TFormat>(x, c, Scales<TFormat>(a, own, c), even);
            int next = c + warps;
            if (next >= count)
                continue;
            x = TileStream.Inputs<TFormat, SharedTileMemory>(row, TileStream.InputWord<TFormat>(lane), next);
            odd = tile.Multiply<TFormat>(x, next, Scales<TFormat>(a, own, next), odd);
        }
        return BulkSums.Add(even, odd);
    }

    private static (float Gate, float Up) Scales<TFormat>(ExpertArgs a, (ArrayView<float> Scales, int First) own, int chunk)
        where TFormat : struct, IStreamedFormat =>
        (BulkTile.Scale<TFormat>(own.Scales, own.First, a.Weights, chunk), BulkTile.Scale<TFormat>(own.Scales, own.First + BulkTile.ScaleCount<TFormat>(a.Weights), a.Weights, chunk));

    // Blocks take turns with the units of a pair, then of the next: they differ by one at most.
    private static RoutedUnit Unit(ExpertArgs a, int number)
    {
        int units = (a.Width + Rows - 1) / Rows, place = (number * Grid.DimX) + Grid.IdxX;
        RoutedUnit unit;
        unit.Pair = place / units;
        unit.FirstRow = (place - (unit.Pair * units)) * Rows;
        unit.Rows = IntrinsicMath.Min(a.Width - unit.FirstRow, Rows);
        return unit;
    }

    private static int UnitsOf(ExpertArgs a)
    {
        int all = a.TopK * ((a.Width + Rows - 1) / Rows);
        return (all - Grid.IdxX + Grid.DimX - 1) / Grid.DimX;
    }

    // Rows of a tile that do not exist are not fetched: what stands there goes into sums that are not stored.
    private static void Request<TFormat>(ExpertArgs a, BulkTile tile, ArrayView<int> choice, uint barriers, (int Unit, int Slot) which)
        where TFormat : struct, IStreamedFormat
    {
        RoutedUnit unit = Unit(a, which.Unit);
        int expert = RoutedChoice.Expert(choice, unit.Pair), row = which.Slot * TileStream.Rows;
        uint barrier = barriers + (uint)(which.Slot * sizeof(long));
        Mbarrier.ArriveExpecting(barrier, 2 * unit.Rows * tile.RowBytes);
        tile.Request<TFormat>(a.Weights, (expert, unit.FirstRow, unit.Rows), row, barrier);
        tile.Request<TFormat>(a.Weights, (expert, unit.FirstRow + a.Width, unit.Rows), row + Rows, barrier);
    }

    // A warp loads a unit's.
    private static void LoadScales<TFormat>(ExpertArgs a, ArrayView<float> scales, int first, ArrayView<int> choice, RoutedUnit unit)
        where TFormat : struct, IStreamedFormat
    {
        int expert = RoutedChoice.Expert(choice, unit.Pair), lane = Group.IdxX & 31, half = lane >> 4;
        BulkTile.LoadScales<TFormat>(scales, first + (half * BulkTile.ScaleCount<TFormat>(a.Weights)), a.Weights, (expert, unit.FirstRow + (half * a.Width)), (lane & 15, 16));
    }

    // Sixteen lanes an output: eight have the warps' sums of gate, eight those of up.
    private static void Store(ExpertArgs a, ArrayView<float> partials, float norm)
    {
        int warps = Group.DimX >> 5, outputs = UnitsOf(a) * Rows, lane = Group.IdxX & 15, half = lane >> 3;
        for (int first = 0; first < outputs; first += Group.DimX >> 4)
        {
            int output = first + (Group.IdxX >> 4), u = IntrinsicMath.Min(output, outputs - 1) / Rows, row = output & (Rows - 1);
            float sum = 0;
            for (int warp = lane & 7; warp < warps; warp += 8)
                sum += partials[(((u * warps) + warp) * TileStream.Rows) + (half * Rows) + row];
            sum += WarpOps.ShuffleXor(sum, 1);
            sum += WarpOps.ShuffleXor(sum, 2);
            sum += WarpOps.ShuffleXor(sum, 4);
            float gate = sum * norm, up = WarpOps.ShuffleXor(sum, 8) * norm;
            RoutedUnit unit = Unit(a, u);
            if (lane == 0 && output < outputs && row < unit.Rows)
                a.Activated[((long)unit.Pair * a.Width) + unit.FirstRow + row] = Bf16.FromFloat(gate / (1f + XMath.Exp(-gate)) * up);
        }
    }

    private static void StoreRouting(ExpertArgs a, RouterChoice choice, float norm)
    {
        int lane = Group.IdxX & 31;
        float weight = RouterSums.Weight(a.Router, choice, a.TopK, norm);
        RouterSums.StoreLogits(a.Router, choice, norm);
        if (lane < a.TopK)
        {
            a.Experts[lane] = choice.ChosenExpert;
            a.PairWeights[lane] = weight;
        }
    }
}
