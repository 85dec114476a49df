using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

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
    public static int SharedBytes(int ringBytes, int pairs, int k) => RingStart(pairs, k) + TileRing.BarrierBytes + ringBytes;

    public static void Run<TFormat, TRing>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat
        where TRing : struct, ITileRing
    {
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int k = a.Weights.K, warps = Group.DimX >> 5, turn = Group.IdxX >> 5, lane = Group.IdxX & 31;
        int first = RingStart(a.TopK, k), step = a.Slots * TileRing.SlotBytes<TFormat>(a.RowStride) / sizeof(float);
        TileRing ring = TileRing.Open<TFormat, TRing>(SharedWindow.Open(ref shared[0]) + (uint)first, turn, a.Slots, a.RowStride);
        F4 sum = Stream<TFormat, TRing>(a, shared, ring);
        // A warp's sums take the place of its weights.
        ArrayView<float> partials = shared.SubView(first + TileRing.BarrierBytes, warps * step * sizeof(float)).Cast<float>();
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

    // The warps take turns with the strips of all pairs, pair by pair.
    private static F4 Stream<TFormat, TRing>(ExpertArgs a, ArrayView<byte> shared, TileRing ring)
        where TFormat : struct, IStreamedFormat
        where TRing : struct, ITileRing
    {
        int lane = Group.IdxX & 31, turn = Group.IdxX >> 5, warps = Group.DimX >> 5, strips = TileRing.Strips<TFormat>(a.Weights.K), count = a.TopK * strips;
        TileAddresses at = TileRing.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, lane);
        ArrayView<uint> rows = shared.SubView(RoutedChoice.Bytes, 2 * a.TopK * a.Weights.K).Cast<uint>();
        ArrayView<int> choice = shared.SubView(0, RoutedChoice.Bytes).Cast<int>();
        RoutedChoice.Make(a.Router, choice, a.TopK);
        for (int i = 0; i < ring.Slots; i++)
            Request<TFormat, TRing>(a, ring, (at, choice), (turn + (i * warps), count, strips), i);
        GridDependency.Release();
        float matrix = lane < a.TopK ? TileStream.MatrixScale<TFormat>(a.Weights, RoutedChoice.Expert(choice, lane)) : 0;
        GridDependency.Wait();
        uint weight = lane < a.TopK ? Mem.LoadL2Word(ref a.PairWeights.Cast<uint>()[lane]) : 0;
        TileRow.Copy(a.Activated.Cast<uint>(), rows);
        float scales = Interop.IntAsFloat(weight) * matrix;
        Group.Barrier(); // rows are there before anyone multiplies by them
        F4 even = default, odd = default;
        for (int i = 0, item = turn; item < count; i++, item += warps)
        {
            TRing.Wait(ring, i, ring.Slots - 1);
            int pair = item / strips, strip = item - (pair * strips), chunks = TileRing.ChunksOf<TFormat>(a.Weights, strip);
            var from = (RoutedChoice.Expert(choice, pair), strip);
            float scale = Interop.IntAsFloat(WarpOps.Shuffle(Interop.FloatAsInt(scales), pair));
            int word = (pair * (a.Weights.K >> 1)) + TileStream.InputWord<TFormat>(lane), first = strip * TileRing.StripChunks;
            for (int j = 0; j < chunks; j += 2)
            {
                TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(rows, word, first + j);
                even = TileStream.Multiply<TFormat>(TRing.Take<TFormat>(ring, a.Weights, at, from, i, j), x, scale, scale, even);
                if (j + 1 >= chunks)
                    continue;
                x = TileStream.Inputs<TFormat, SharedTileMemory>(rows, word, first + j + 1);
                odd = TileStream.Multiply<TFormat>(TRing.Take<TFormat>(ring, a.Weights, at, from, i, j + 1), x, scale, scale, odd);
            }
            WarpOps.Barrier(); // no lane reads the slot any more
            Request<TFormat, TRing>(a, ring, (at, choice), (item + (ring.Slots * warps), count, strips), i + ring.Slots);
        }
        return TileStream.Add(even, odd);
    }

    // Beyond the last strip nothing is requested.
    private static void Request<TFormat, TRing>(ExpertArgs a, TileRing ring, (TileAddresses Rows, ArrayView<int> Choice) at, (int Item, int Count, int Strips) own, int index)
        where TFormat : struct, IStreamedFormat
        where TRing : struct, ITileRing
    {
        int pair = own.Item / own.Strips;
        if (own.Item < own.Count)
            TRing.Request<TFormat>(ring, a.Weights, at.Rows, (RoutedChoice.Expert(at.Choice, pair), own.Item - (pair * own.Strips)), index);
        CpAsync.Commit();
    }
}
