using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>One warp's place in its sequence of chunks: Chunk, Chunk + Step, … of the first chosen expert, then of the next.</summary>
internal struct RoutedPlace
{
    public int Pair, Chunk, First, Step, Chunks;

    /// <summary>The next chunk of the warp.</summary>
    public void Advance()
    {
        Chunk += Step;
        Pair += Chunk >= Chunks ? 1 : 0;
        Chunk = Chunk >= Chunks ? First : Chunk;
    }
}

/// <summary>
/// <see cref="ExpertDown"/> for the token of <see cref="RoutedGateUp"/>: r += Σ_p weight[p] · Wdown(expert of p) · a[p], float32 sums, pairs in the order of their choice.
/// </summary>
/// <remarks>
/// A block has 16 columns of the residual stream. It chooses from the same sums as the launch before, before it waits: they are older than that. So weights of
/// all chosen experts are on their way while gate and up are multiplied; pairs' weights and inputs are read after the wait.
/// </remarks>
internal static class RoutedDown
{
    private static int RingStart(int pairs, int k) => RoutedChoice.Bytes + (2 * pairs * k);

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes(int ringBytes, int pairs, int k) => RingStart(pairs, k) + ringBytes;

    public static void Run<TFormat>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int k = a.Weights.K, warps = Group.DimX >> 5, turn = Group.IdxX >> 5, lane = Group.IdxX & 31;
        int first = RingStart(a.TopK, k), step = a.Slots * TileRing.SlotBytes<TFormat>() / sizeof(float);
        TileRing ring = TileRing.Of<TFormat>(SharedWindow.Open(ref shared[0]) + (uint)first, turn, a.Slots);
        F4 sum = Stream<TFormat>(a, shared, ring);
        // A warp's sums take the place of its weights.
        ArrayView<float> partials = shared.SubView(first, warps * step * sizeof(float)).Cast<float>();
        WarpOps.Barrier(); // no lane reads weights any more
        TileStream.Publish(partials, turn * step, lane, sum);
        int n = (Grid.IdxX * TileStream.Rows) + (Group.IdxX >> 3);
        bool owns = Group.IdxX < TileStream.Sums && n < a.Weights.N;
        float old = 0;
        if (owns)
            old = a.Residual[n];
        Group.Barrier(); // all warps' sums are there before they are added
        // Eight lanes a row, in the first four warps.
        if (Group.IdxX >= TileStream.Sums)
            return;
        old += TileStream.CollectRow(partials, 0, step, warps, Group.IdxX);
        if (owns && (Group.IdxX & 7) == 0)
            a.Residual[n] = old;
    }

    private static F4 Stream<TFormat>(ExpertArgs a, ArrayView<byte> shared, TileRing ring)
        where TFormat : struct, IStreamedFormat
    {
        int lane = Group.IdxX & 31, turn = Group.IdxX >> 5;
        var next = new RoutedPlace { Chunk = turn, First = turn, Step = Group.DimX >> 5, Chunks = a.Weights.K / TileStream.ChunkCodes<TFormat>() };
        RoutedPlace at = next;
        int items = turn < next.Chunks ? a.TopK * ((next.Chunks - turn + next.Step - 1) / next.Step) : 0;
        TileAddresses place = TileRing.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, lane);
        ArrayView<uint> rows = shared.SubView(RoutedChoice.Bytes, 2 * a.TopK * a.Weights.K).Cast<uint>();
        ArrayView<int> choice = shared.SubView(0, RoutedChoice.Bytes).Cast<int>();
        RoutedChoice.Make(a.Router, choice, a.TopK);
        int experts = RoutedChoice.Expert(choice, IntrinsicMath.Min(lane, a.TopK - 1));
        int requested = 0;
        for (; requested < ring.Slots; requested += 2)
            RequestStep<TFormat>(a, ring, (place, experts), (requested, items), ref next);
        GridDependency.Release();
        float matrix = lane < a.TopK ? TileStream.MatrixScale<TFormat>(a.Weights, experts) : 0;
        GridDependency.Wait();
        uint weight = lane < a.TopK ? Mem.LoadL2Word(ref a.PairWeights.Cast<uint>()[lane]) : 0;
        TileRow.Copy(a.Activated.Cast<uint>(), rows);
        float scale = Interop.IntAsFloat(weight) * matrix;
        Group.Barrier(); // rows are there before anyone multiplies by them
        F4 even = default, odd = default;
        for (int i = 0; i < items; i += 2, requested += 2)
        {
            ring.WaitStep();
            even = Multiply<TFormat>(a, ring, (place, experts), at, i, (rows, scale), even);
            at.Advance();
            if (i + 1 < items)
                odd = Multiply<TFormat>(a, ring, (place, experts), at, i + 1, (rows, scale), odd);
            at.Advance();
            RequestStep<TFormat>(a, ring, (place, experts), (requested, items), ref next);
        }
        return TileStream.Add(even, odd);
    }

    // A step is two of the warp's chunks. The expert of pair p is known to lane p.
    private static void RequestStep<TFormat>(ExpertArgs a, TileRing ring, (TileAddresses Place, int Experts) at, (int First, int Count) items, ref RoutedPlace next)
        where TFormat : struct, IStreamedFormat
    {
        if (items.First < items.Count)
            ring.Request<TFormat>(a.Weights, at.Place, (int)WarpOps.Shuffle((uint)at.Experts, next.Pair), next.Chunk, items.First);
        next.Advance();
        if (items.First + 1 < items.Count)
            ring.Request<TFormat>(a.Weights, at.Place, (int)WarpOps.Shuffle((uint)at.Experts, next.Pair), next.Chunk, items.First + 1);
        next.Advance();
        CpAsync.Commit();
    }

    private static F4 Multiply<TFormat>(ExpertArgs a, TileRing ring, (TileAddresses Place, int Experts) from, RoutedPlace at, int slot, (ArrayView<uint> Rows, float Scales) inputs, F4 sum)
        where TFormat : struct, IStreamedFormat
    {
        // Only zero points depend on which matrix it is.
        int expert = TFormat.HasZeroPoints ? (int)WarpOps.Shuffle((uint)from.Experts, at.Pair) : 0;
        float scale = Interop.IntAsFloat(WarpOps.Shuffle(Interop.FloatAsInt(inputs.Scales), at.Pair));
        TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(inputs.Rows, (at.Pair * (a.Weights.K >> 1)) + TileStream.InputWord<TFormat>(Group.IdxX & 31), at.Chunk);
        return TileStream.Multiply<TFormat>(ring.Take<TFormat>(a.Weights, from.Place, expert, at.Chunk, slot), x, scale, scale, sum);
    }
}
