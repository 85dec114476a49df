using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Four warps of a block: their pair, which may be none, and their tile.</summary>
internal struct RoutedTeam
{
    public int Number, Pair, FirstRow, Turn;
}

/// <summary>
/// <see cref="ExpertGateUp"/> for one token that the kernel norms and routes itself: a[p] = silu(Wgate · x) · (Wup · x) with the p-th largest expert of
/// the sums that <see cref="TileLinear"/> left and x = bf16(residual · gain) · rsqrt(mean(residual²) + epsilon).
/// </summary>
/// <remarks>
/// A team of four warps has 16 gate rows and the 16 up rows beside them of one expert; a block is one team or several. The block chooses the experts and norms the residual stream, then all warps request their strips. One warp of
/// the grid writes ids, weights and logits. The launch after this one is released only when all blocks have waited, and may read early what is older.
/// </remarks>
internal static class RoutedGateUp
{
    /// <summary>Warps of a team.</summary>
    public const int TeamWarps = TileStream.Sums / 32;

    private const int RowStart = TileRow.ScratchBytes + RoutedChoice.Bytes;

    /// <summary>Where the warps' slots begin.</summary>
    private static int RingStart(int k) => RowStart + (2 * k);

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes(int ringBytes, int k) => RingStart(k) + TileRing.BarrierBytes + ringBytes;

    public static void Run<TFormat, TRing>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat
        where TRing : struct, ITileRing
    {
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int k = a.Weights.K, warps = Group.DimX >> 5, turn = Group.IdxX >> 5, lane = Group.IdxX & 31;
        RoutedTeam team = Team(a);
        int first = RingStart(k), step = a.Slots * TileRing.SlotBytes<TFormat>(a.RowStride) / sizeof(float);
        TileRing ring = TileRing.Open<TFormat, TRing>(SharedWindow.Open(ref shared[0]) + (uint)first, turn, a.Slots, a.RowStride);
        ArrayView<uint> row = shared.SubView(RowStart, 2 * k).Cast<uint>();
        ArrayView<int> choice = shared.SubView(TileRow.ScratchBytes, RoutedChoice.Bytes).Cast<int>();
        TileRowGains gains = TileRow.LoadGains(a.Source, k / 2);
        TileAddresses gate = TileRing.Locate<TFormat>(a.Weights, team.FirstRow, lane), up = TileRing.Locate<TFormat>(a.Weights, team.FirstRow + a.Width, lane);
        GridDependency.Wait();
        GridDependency.Release();
        TileRowStates states = TileRow.LoadStates(a.Source, k / 2);
        TileRow.Norm(a.Source, row, shared.Cast<float>(), states, gains);
        RoutedChoice.Make(a.Router, choice, a.TopK);
        // A team without a pair has nothing to multiply.
        int expert = RoutedChoice.Expert(choice, IntrinsicMath.Min(team.Pair, a.TopK - 1)), strips = team.Pair < a.TopK ? TileRing.Strips<TFormat>(k) : 0;
        for (int i = 0; i < ring.Slots; i += 2)
            RequestStep<TFormat, TRing>(a, ring, (gate, up), (team.Turn + (i / 2 * TeamWarps), strips), (expert, i));
        F4 gateSum = default, upSum = default;
        for (int i = 0, strip = team.Turn; strip < strips; i += 2, strip += TeamWarps)
        {
            TRing.Wait(ring, i, (ring.Slots / 2) - 1);
            TRing.Wait(ring, i + 1, (ring.Slots / 2) - 1);
            int chunks = TileRing.ChunksOf<TFormat>(a.Weights, strip);
            for (int j = 0; j < chunks; j++)
            {
                TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(row, TileStream.InputWord<TFormat>(lane), (strip * TileRing.StripChunks) + j);
                gateSum = TileStream.Multiply<TFormat>(TRing.Take<TFormat>(ring, a.Weights, gate, (expert, strip), i, j), x, 1f, 1f, gateSum);
                upSum = TileStream.Multiply<TFormat>(TRing.Take<TFormat>(ring, a.Weights, up, (expert, strip), i + 1, j), x, 1f, 1f, upSum);
            }
            WarpOps.Barrier(); // no lane reads the slots any more
            RequestStep<TFormat, TRing>(a, ring, (gate, up), (strip + (ring.Slots / 2 * TeamWarps), strips), (expert, i + ring.Slots));
        }
        // A warp's sums take the place of its weights.
        ArrayView<float> partials = shared.SubView(first + TileRing.BarrierBytes, warps * step * sizeof(float)).Cast<float>();
        WarpOps.Barrier(); // no lane reads weights any more
        TileStream.Publish(partials, turn * step, lane, gateSum);
        TileStream.Publish(partials, (turn * step) + TileStream.Sums, lane, upSum);
        Group.Barrier(); // all warps' sums are there before they are added
        float norm = TileRow.Factor(a.Source, k, shared.Cast<float>());
        Store(a, (partials, step), team, TileStream.MatrixScale<TFormat>(a.Weights, expert) * norm);
        if (team.Pair == a.TopK - 1 && team.FirstRow == 0 && team.Turn == 0)
            StoreRouting(a, RoutedChoice.OfWarp(choice, a.TopK), norm);
    }

    // A step is a strip of gate and the one of up.
    private static void RequestStep<TFormat, TRing>(ExpertArgs a, TileRing ring, (TileAddresses Gate, TileAddresses Up) at, (int Strip, int Count) own, (int Expert, int Index) step)
        where TFormat : struct, IStreamedFormat
        where TRing : struct, ITileRing
    {
        if (own.Strip < own.Count)
        {
            TRing.Request<TFormat>(ring, a.Weights, at.Gate, (step.Expert, own.Strip), step.Index);
            TRing.Request<TFormat>(ring, a.Weights, at.Up, (step.Expert, own.Strip), step.Index + 1);
        }
        CpAsync.Commit();
    }

    // Teams go through the tiles of a pair, then of the next; tiles beside each other are other blocks', so that blocks differ by one tile at most.
    private static RoutedTeam Team(ExpertArgs a)
    {
        int number = Group.IdxX / TileStream.Sums, tiles = (a.Width + TileStream.Rows - 1) / TileStream.Rows, place = (number * Grid.DimX) + Grid.IdxX;
        RoutedTeam team;
        team.Number = number;
        team.Pair = place / tiles;
        team.FirstRow = (place - (team.Pair * tiles)) * TileStream.Rows;
        team.Turn = (Group.IdxX >> 5) - (number * TeamWarps);
        return team;
    }

    // Eight lanes a row.
    private static void Store(ExpertArgs a, (ArrayView<float> Sums, int Step) partials, RoutedTeam team, float factor)
    {
        int thread = Group.IdxX - (team.Number * TileStream.Sums), n = team.FirstRow + (thread >> 3), first = team.Number * TeamWarps * partials.Step;
        float gate = TileStream.CollectRow(partials.Sums, first, partials.Step, TeamWarps, thread) * factor;
        float up = TileStream.CollectRow(partials.Sums, first + TileStream.Sums, partials.Step, TeamWarps, thread) * factor;
        if ((thread & 7) == 0 && n < a.Width && team.Pair < a.TopK)
            a.Activated[((long)team.Pair * a.Width) + n] = Bf16.FromFloat(gate / (1f + XMath.Exp(-gate)) * up);
    }

    // One warp of the whole grid: its choice is everybody's.
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
