using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// <see cref="ExpertGateUp"/> for one token that the kernel norms and routes itself: a[p] = silu(Wgate · x) · (Wup · x) with the p-th largest expert of
/// the sums that <see cref="TileLinear"/> left and x = bf16(residual · gain) · rsqrt(mean(residual²) + epsilon).
/// </summary>
/// <remarks>
/// A block has 16 gate rows and the 16 up rows beside them. Every warp of it looks for its expert alone, no further than to the block's own pair, and requests its
/// chunks at once; only then is the residual stream normed, beside the weights that come. What the norm waits for must not be requested behind them. The blocks of the last pair
/// have the whole choice: one warp of them writes ids, weights and logits. The launch after this one is released only when all blocks have waited, and may read early what is older.
/// </remarks>
internal static class RoutedGateUp
{
    private const int WarpSums = 2 * TileStream.Sums;

    /// <summary>Where the warps' slots begin.</summary>
    private static int RingStart(int k) => TileRow.ScratchBytes + (2 * k);

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes(int ringBytes, int k) => RingStart(k) + ringBytes;

    public static void Run<TFormat>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int k = a.Weights.K, warps = Group.DimX >> 5, turn = Group.IdxX >> 5, lane = Group.IdxX & 31, pair = Grid.IdxY;
        int first = RingStart(k), step = a.Slots * TileRing.SlotBytes<TFormat>() / sizeof(float);
        TileRing ring = TileRing.Of<TFormat>(SharedWindow.Open(ref shared[0]) + (uint)first, turn, a.Slots);
        ArrayView<uint> row = shared.SubView(TileRow.ScratchBytes, 2 * k).Cast<uint>();
        TileRowGains gains = TileRow.LoadGains(a.Source, k / 2);
        TileAddresses gate = TileRing.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, lane), up = TileRing.Locate<TFormat>(a.Weights, (Grid.IdxX * TileStream.Rows) + a.Width, lane);
        GridDependency.Wait();
        GridDependency.Release();
        TileRowStates states = TileRow.LoadStates(a.Source, k / 2);
        // The last of so many rounds finds the block's own expert.
        RouterChoice choice = RouterSums.Select(a.Router, pair + 1);
        int expert = choice.LastExpert, c = turn, count = k / TileStream.ChunkCodes<TFormat>();
        for (int slot = 0; slot < ring.Slots; slot += 2)
            RequestStep<TFormat>(a, ring, gate, up, (expert, c + (slot / 2 * warps), slot));
        TileRow.Norm(a.Source, row, shared.Cast<float>(), states, gains);
        Group.Barrier(); // the row is there before anyone multiplies by it
        F4 gateSum = default, upSum = default;
        for (int slot = 0; c < count; slot += 2, c += warps)
        {
            ring.WaitStep();
            TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(row, TileStream.InputWord<TFormat>(lane), c);
            gateSum = TileStream.Multiply<TFormat>(ring.Take<TFormat>(a.Weights, gate, expert, c, slot), x, 1f, 1f, gateSum);
            upSum = TileStream.Multiply<TFormat>(ring.Take<TFormat>(a.Weights, up, expert, c, slot + 1), x, 1f, 1f, upSum);
            RequestStep<TFormat>(a, ring, gate, up, (expert, c + (ring.Slots / 2 * warps), slot));
        }
        // A warp's sums take the place of its weights.
        ArrayView<float> partials = shared.SubView(first, warps * step * sizeof(float)).Cast<float>();
        WarpOps.Barrier(); // no lane reads weights any more
        TileStream.Publish(partials, turn * step, lane, gateSum);
        TileStream.Publish(partials, (turn * step) + TileStream.Sums, lane, upSum);
        Group.Barrier(); // all warps' sums are there before they are added
        float norm = TileRow.Factor(a.Source, k, shared.Cast<float>());
        Store(a, partials, step, TileStream.MatrixScale<TFormat>(a.Weights, expert) * norm);
        if (pair == a.TopK - 1)
            StoreRouting(a, choice, norm);
    }

    // A step is a chunk of gate and the one of up.
    private static void RequestStep<TFormat>(ExpertArgs a, TileRing ring, TileAddresses gate, TileAddresses up, (int Expert, int Chunk, int Slot) step)
        where TFormat : struct, IStreamedFormat
    {
        if (step.Chunk < a.Weights.K / TileStream.ChunkCodes<TFormat>())
        {
            ring.Request<TFormat>(a.Weights, gate, step.Expert, step.Chunk, step.Slot);
            ring.Request<TFormat>(a.Weights, up, step.Expert, step.Chunk, step.Slot + 1);
        }
        CpAsync.Commit();
    }

    // Eight lanes a row, in the first four warps.
    private static void Store(ExpertArgs a, ArrayView<float> partials, int step, float factor)
    {
        int n = (Grid.IdxX * TileStream.Rows) + (Group.IdxX >> 3), warps = Group.DimX >> 5;
        if (Group.IdxX >= TileStream.Sums)
            return;
        float gate = TileStream.CollectRow(partials, 0, step, warps) * factor, up = TileStream.CollectRow(partials, TileStream.Sums, step, warps) * factor;
        if ((Group.IdxX & 7) == 0 && n < a.Width)
            a.Activated[((long)Grid.IdxY * a.Width) + n] = Bf16.FromFloat(gate / (1f + XMath.Exp(-gate)) * up);
    }

    // One warp of the whole grid: its choice is everybody's.
    private static void StoreRouting(ExpertArgs a, RouterChoice choice, float norm)
    {
        if (Grid.IdxX > 0 || Group.IdxX >= 32)
            return;
        float weight = RouterSums.Weight(a.Router, choice, a.TopK, norm);
        RouterSums.StoreLogits(a.Router, choice, norm);
        if (Group.IdxX < a.TopK)
        {
            a.Experts[Group.IdxX] = choice.ChosenExpert;
            a.PairWeights[Group.IdxX] = weight;
        }
    }
}
