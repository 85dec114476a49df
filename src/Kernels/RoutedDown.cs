using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// <see cref="ExpertDown"/> for one token that <see cref="ExpertGateUp"/> routed, by the copy engine (sm_90): r += Σ_p weight[p] · Wdown(expert of p) · a[p], float32 sums in a fixed order.
/// </summary>
/// <remarks>
/// A block has 16 columns of the residual stream and a tile for every pair. It chooses from the same sums as the launch before, before it waits: they are older than that. So weights of
/// all chosen experts are on their way while gate and up are multiplied; pairs' weights and inputs are read after the wait. The warps take turns with the chunks of all tiles.
/// </remarks>
internal static class RoutedDown
{
    private static int RowStart => RoutedChoice.Bytes;

    private static int BarrierStart(int pairs, int k) => RowStart + (2 * pairs * k);

    private static int PartialStart(int pairs, int k) => BarrierStart(pairs, k) + (Router.MaxTopK * sizeof(long));

    private static int ScaleStart(int pairs, int k, int warps) => PartialStart(pairs, k) + (warps * TileStream.Rows * sizeof(float));

    private static int TileStart(int pairs, int k, int warps, int scales) => (ScaleStart(pairs, k, warps) + (pairs * scales * sizeof(float)) + 15) & ~15;

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes(int pairs, int k, int warps, (int Scales, int RowBytes) rows) => TileStart(pairs, k, warps, rows.Scales) + (pairs * TileStream.Rows * rows.RowBytes);

    public static void Run<TFormat>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int k = a.Weights.K, warps = Group.DimX >> 5, n = (Grid.IdxX * TileStream.Rows) + (Group.IdxX >> 3);
        ArrayView<float> partials = shared.SubView(PartialStart(a.TopK, k), warps * TileStream.Rows * sizeof(float)).Cast<float>();
        BulkSums sums = Stream<TFormat>(a, shared);
        BulkTile.Publish(partials, (Group.IdxX >> 5) * TileStream.Rows, sums);
        bool owns = Group.IdxX < TileStream.Sums && n < a.Weights.N;
        float old = 0;
        if (owns)
            old = a.Residual[n];
        Group.Barrier(); // all warps' sums are there before they are added
        // Eight lanes a row, in the first four warps.
        if (Group.IdxX >= TileStream.Sums)
            return;
        old += BulkTile.Collect(partials, 0, warps, Group.IdxX);
        if (owns && (Group.IdxX & 7) == 0)
            a.Residual[n] = old;
    }

    private static BulkSums Stream<TFormat>(ExpertArgs a, ArrayView<byte> shared)
        where TFormat : struct, IStreamedFormat
    {
        int k = a.Weights.K, lane = Group.IdxX & 31, turn = Group.IdxX >> 5, warps = Group.DimX >> 5, chunks = k / TileStream.ChunkCodes<TFormat>(), scaleCount = BulkTile.ScaleCount<TFormat>(a.Weights);
        uint window = SharedWindow.Open(ref shared[0]), barriers = window + (uint)BarrierStart(a.TopK, k);
        BulkTile.MakeBarriers(barriers, a.TopK);
        ArrayView<uint> rows = shared.SubView(RowStart, 2 * a.TopK * k).Cast<uint>();
        ArrayView<int> choice = shared.SubView(0, RoutedChoice.Bytes).Cast<int>();
        RoutedChoice.Make(a.Router, choice, a.TopK);
        BulkTile tile;
        tile.RowBytes = (k >> TFormat.CodesPerWordShift) * sizeof(uint);
        tile.Codes = window + (uint)TileStart(a.TopK, k, warps, scaleCount);
        if (Group.IdxX < a.TopK)
            Request<TFormat>(a, tile, choice, barriers, Group.IdxX);
        GridDependency.Release();
        ArrayView<float> scales = shared.SubView(ScaleStart(a.TopK, k, warps), a.TopK * scaleCount * sizeof(float)).Cast<float>();
        for (int p = turn; p < a.TopK; p += warps)
            BulkTile.LoadScales<TFormat>(scales, p * scaleCount, a.Weights, (RoutedChoice.Expert(choice, p), Grid.IdxX * TileStream.Rows), (lane, 32));
        GridDependency.Wait();
        uint weight = lane < a.TopK ? Mem.LoadL2Word(ref a.PairWeights.Cast<uint>()[lane]) : 0;
        TileRow.Copy<AsDecoded<TFormat>>(a.Activated.Cast<uint>(), rows);
        Group.Barrier(); // rows are there before anyone multiplies by them
        BulkSums even = default, odd = default;
        int pair = turn / chunks, chunk = turn - (pair * chunks);
        while (pair < a.TopK)
        {
            even = Multiply<TFormat>(a, tile, (rows, scales), (barriers, pair, weight), chunk, even);
            Advance(ref pair, ref chunk, warps, chunks);
            if (pair >= a.TopK)
                break;
            odd = Multiply<TFormat>(a, tile, (rows, scales), (barriers, pair, weight), chunk, odd);
            Advance(ref pair, ref chunk, warps, chunks);
        }
        return BulkSums.Add(even, odd);
    }

    private static void Advance(ref int pair, ref int chunk, int step, int chunks)
    {
        chunk += step;
        while (chunk >= chunks)
        {
            chunk -= chunks;
            pair++;
        }
    }

    // Rows that do not exist are not fetched: what stands there goes into sums that are not stored.
    private static void Request<TFormat>(ExpertArgs a, BulkTile tile, ArrayView<int> choice, uint barriers, int pair)
        where TFormat : struct, IStreamedFormat
    {
        int first = Grid.IdxX * TileStream.Rows, count = IntrinsicMath.Min(a.Weights.N - first, TileStream.Rows);
        uint barrier = barriers + (uint)(pair * sizeof(long));
        Mbarrier.ArriveExpecting(barrier, count * tile.RowBytes);
        tile.Request<TFormat>(a.Weights, (RoutedChoice.Expert(choice, pair), first, count), pair * TileStream.Rows, barrier);
    }

    private static BulkSums Multiply<TFormat>(ExpertArgs a, BulkTile tile, (ArrayView<uint> Rows, ArrayView<float> Scales) inputs, (uint Barriers, int Pair, uint Weights) own, int chunk, BulkSums sums)
        where TFormat : struct, IStreamedFormat
    {
        Mbarrier.Wait(own.Barriers + (uint)(own.Pair * sizeof(long)), 0);
        float scale = Interop.IntAsFloat(WarpOps.Shuffle(own.Weights, own.Pair)) * BulkTile.Scale<TFormat>(inputs.Scales, own.Pair * BulkTile.ScaleCount<TFormat>(a.Weights), a.Weights, chunk);
        TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(inputs.Rows, (own.Pair * (a.Weights.K >> 1)) + TileStream.InputWord<TFormat>(Group.IdxX & 31), chunk);
        tile.Codes += (uint)(own.Pair * TileStream.Rows * tile.RowBytes);
        return tile.Multiply<TFormat>(x, chunk, (scale, scale), sums);
    }
}
