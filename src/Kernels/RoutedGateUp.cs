using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Eight gate rows of a pair's expert and the up rows beside them: what a team of four warps multiplies at once. There may be none.</summary>
internal struct RoutedUnit
{
    public int Pair, FirstRow, Rows, Exists;
}

/// <summary>
/// <see cref="ExpertGateUp"/> for one token that the kernel norms and routes itself, by the copy engine (sm_90): a[p] = silu(Wgate · x) · (Wup · x) with the p-th largest expert of
/// the sums that <see cref="TileLinear"/> left and x = bf16(residual · gain) · rsqrt(mean(residual²) + epsilon).
/// </summary>
/// <remarks>
/// Eight gate rows and the eight up rows beside them are one tile of tensor cores, so that both sums of an output meet in one warp. A block is several teams of four warps, each with room for one tile, and a tile after the
/// other; a block a multiprocessor, which leaves room for the next launch's block. That one is released when all blocks have waited, and may read early what is older. One warp of the grid writes
/// ids, weights and logits.
/// </remarks>
internal static class RoutedGateUp
{
    /// <summary>Warps of a team.</summary>
    public const int TeamWarps = Warpgroup.Threads / 32;

    /// <summary>Gate rows of a tile.</summary>
    public const int Rows = TileStream.Rows / 2;

    private const int ChoiceStart = TileRow.ScratchBytes;
    private const int RowStart = ChoiceStart + RoutedChoice.Bytes;

    private static int BarrierStart(int k) => RowStart + (2 * k);

    private static int PartialStart(int k) => BarrierStart(k) + (SkinnyGemm.MostWarps / TeamWarps * sizeof(long));

    private static int ScaleStart(int k, int warps, int rounds) => PartialStart(k) + (rounds * warps * TileStream.Rows * sizeof(float));

    private static int TileStart(int k, int warps, int rounds, int scales) => (ScaleStart(k, warps, rounds) + (rounds * (warps / TeamWarps) * 2 * scales * sizeof(float)) + 15) & ~15;

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes(int k, int warps, int rounds, (int Scales, int RowBytes) rows) =>
        TileStart(k, warps, rounds, rows.Scales) + (warps / TeamWarps * TileStream.Rows * rows.RowBytes);

    public static void Run<TFormat>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int k = a.Weights.K, warps = Group.DimX >> 5, team = Group.IdxX / Warpgroup.Threads;
        ArrayView<uint> row = shared.SubView(RowStart, 2 * k).Cast<uint>();
        ArrayView<int> choice = shared.SubView(ChoiceStart, RoutedChoice.Bytes).Cast<int>();
        ArrayView<float> partials = shared.SubView(PartialStart(k), a.Rounds * warps * TileStream.Rows * sizeof(float)).Cast<float>();
        uint window = SharedWindow.Open(ref shared[0]);
        BulkTile.MakeBarriers(window + (uint)BarrierStart(k), warps / TeamWarps);
        TileRowGains gains = TileRow.LoadGains(a.Source, k / 2);
        GridDependency.Wait();
        GridDependency.Release();
        TileRowStates states = TileRow.LoadStates(a.Source, k / 2);
        TileRow.Norm(a.Source, row, shared.Cast<float>(), states, gains);
        RoutedChoice.Make(a.Router, choice, a.TopK);
        Stream<TFormat>(a, shared, row, choice, partials);
        Warpgroup.Meet((uint)(team + 1)); // all of the team's sums are there before they are added
        float norm = TileRow.Factor(a.Source, k, shared.Cast<float>());
        for (int round = 0; round < a.Rounds; round++)
            Store(a, partials, round, norm);
        if (Grid.IdxX == 0 && Group.IdxX < 32)
            StoreRouting(a, RoutedChoice.OfWarp(choice, a.TopK), norm);
    }

    private static void Stream<TFormat>(ExpertArgs a, ArrayView<byte> shared, ArrayView<uint> row, ArrayView<int> choice, ArrayView<float> partials)
        where TFormat : struct, IStreamedFormat
    {
        int k = a.Weights.K, warps = Group.DimX >> 5, team = Group.IdxX / Warpgroup.Threads, thread = Group.IdxX - (team * Warpgroup.Threads), scaleCount = BulkTile.ScaleCount<TFormat>(a.Weights);
        uint window = SharedWindow.Open(ref shared[0]), barrier = window + (uint)(BarrierStart(k) + (team * sizeof(long)));
        BulkTile tile;
        tile.RowBytes = (k >> TFormat.CodesPerWordShift) * sizeof(uint);
        tile.Codes = window + (uint)(TileStart(k, warps, a.Rounds, scaleCount) + (team * TileStream.Rows * tile.RowBytes));
        if (thread == 0)
            Request<TFormat>(a, tile, choice, barrier, Unit(a, team, 0));
        ArrayView<float> scales = shared.SubView(ScaleStart(k, warps, a.Rounds), a.Rounds * (warps / TeamWarps) * 2 * scaleCount * sizeof(float)).Cast<float>();
        int firstScale = team * a.Rounds * 2 * scaleCount;
        for (int round = 0; round < a.Rounds; round++)
            LoadScales<TFormat>(a, scales, firstScale + (round * 2 * scaleCount), choice, Unit(a, team, round));
        for (int round = 0; round < a.Rounds; round++)
        {
            RoutedUnit unit = Unit(a, team, round);
            Warpgroup.Meet((uint)(team + 1)); // scales are there; nobody reads the tile before any more
            if (round > 0 && thread == 0)
                Request<TFormat>(a, tile, choice, barrier, unit);
            BulkSums sums = default;
            if (unit.Exists != 0)
            {
                Mbarrier.Wait(barrier, (uint)(round & 1));
                sums = Multiply<TFormat>(a, tile, row, (scales, firstScale + (round * 2 * scaleCount)));
            }
            BulkTile.Publish(partials, ((((team * a.Rounds) + round) * TeamWarps) + (thread >> 5)) * TileStream.Rows, sums);
        }
    }

    private static BulkSums Multiply<TFormat>(ExpertArgs a, BulkTile tile, ArrayView<uint> row, (ArrayView<float> Scales, int First) own)
        where TFormat : struct, IStreamedFormat
    {
        int lane = Group.IdxX & 31, count = a.Weights.K / TileStream.ChunkCodes<TFormat>();
        BulkSums even = default, odd = default;
        for (int c = (Group.IdxX >> 5) & (TeamWarps - 1); c < count; c += 2 * TeamWarps)
        {
            TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(row, TileStream.InputWord<TFormat>(lane), c);
            even = tile.Multiply<TFormat>(x, c, Scales<TFormat>(a, own, c), even);
            int next = c + TeamWarps;
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

    // Teams go through the units of a pair, then of the next; units beside each other are other blocks', so that blocks differ by one at most.
    private static RoutedUnit Unit(ExpertArgs a, int team, int round)
    {
        int units = (a.Width + Rows - 1) / Rows, teams = Group.DimX / Warpgroup.Threads, place = (((round * teams) + team) * Grid.DimX) + Grid.IdxX;
        RoutedUnit unit;
        unit.Pair = place / units;
        unit.FirstRow = (place - (unit.Pair * units)) * Rows;
        unit.Rows = IntrinsicMath.Min(a.Width - unit.FirstRow, Rows);
        unit.Exists = unit.Pair < a.TopK ? 1 : 0;
        return unit;
    }

    // Rows of a tile that do not exist are not fetched: what stands there goes into sums that are not stored.
    private static void Request<TFormat>(ExpertArgs a, BulkTile tile, ArrayView<int> choice, uint barrier, RoutedUnit unit)
        where TFormat : struct, IStreamedFormat
    {
        if (unit.Exists == 0)
            return;
        int expert = RoutedChoice.Expert(choice, unit.Pair);
        Mbarrier.ArriveExpecting(barrier, 2 * unit.Rows * tile.RowBytes);
        tile.Request<TFormat>(a.Weights, (expert, unit.FirstRow, unit.Rows), 0, barrier);
        tile.Request<TFormat>(a.Weights, (expert, unit.FirstRow + a.Width, unit.Rows), Rows, barrier);
    }

    private static void LoadScales<TFormat>(ExpertArgs a, ArrayView<float> scales, int first, ArrayView<int> choice, RoutedUnit unit)
        where TFormat : struct, IStreamedFormat
    {
        if (unit.Exists == 0)
            return;
        int expert = RoutedChoice.Expert(choice, unit.Pair), thread = Group.IdxX % Warpgroup.Threads, half = Warpgroup.Threads / 2;
        BulkTile.LoadScales<TFormat>(scales, thread < half ? first : first + BulkTile.ScaleCount<TFormat>(a.Weights), a.Weights, (expert, thread < half ? unit.FirstRow : unit.FirstRow + a.Width), (thread & (half - 1), half));
    }

    // Eight lanes a row of the tile; gate's row and up's are 64 threads apart: eight rows each.
    private static void Store(ExpertArgs a, ArrayView<float> partials, int round, float norm)
    {
        int team = Group.IdxX / Warpgroup.Threads, thread = Group.IdxX - (team * Warpgroup.Threads), first = ((team * a.Rounds) + round) * TeamWarps * TileStream.Rows;
        RoutedUnit unit = Unit(a, team, round);
        // Lanes 0–3 of eight have the warps' sums of gate, 4–7 those of up.
        int row = thread >> 3, lane = thread & 7, half = lane >> 2;
        if (row >= Rows)
            return;
        float sum = partials[first + ((lane & 3) * TileStream.Rows) + row + (half * Rows)];
        sum += WarpOps.ShuffleXor(sum, 1);
        sum += WarpOps.ShuffleXor(sum, 2);
        float gate = sum * norm, up = WarpOps.ShuffleXor(sum, 4) * norm;
        if (lane == 0 && unit.Exists != 0 && row < unit.Rows)
            a.Activated[((long)unit.Pair * a.Width) + unit.FirstRow + row] = Bf16.FromFloat(gate / (1f + XMath.Exp(-gate)) * up);
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
