using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// <see cref="TileLinear"/> by the copy engine (sm_90): all weights of a block are requested at once before it waits for the launch before it. A block is several teams of warps with a
/// tile each, or one where it adds to the residual stream.
/// </summary>
internal static class BulkLinear
{
    private static int RouterBytes<TSink>(int experts)
        where TSink : struct, ITileSink => TSink.IsResidual ? experts * TileStream.Rows * sizeof(ushort) : 0;

    private static int RouterStart(int k) => TileRow.ScratchBytes + (2 * k);

    private static int BarrierStart<TSink>(int k, int experts)
        where TSink : struct, ITileSink => RouterStart(k) + RouterBytes<TSink>(experts);

    private static int PartialStart<TSink>(int k, int experts)
        where TSink : struct, ITileSink => BarrierStart<TSink>(k, experts) + (SkinnyGemm.MostWarps * sizeof(long));

    private static int ScaleStart<TSink>(int k, int experts, int warps)
        where TSink : struct, ITileSink => PartialStart<TSink>(k, experts) + (warps * TileStream.Rows * sizeof(float));

    private static int TileStart<TSink>(int k, int experts, int warps, int scales)
        where TSink : struct, ITileSink => (ScaleStart<TSink>(k, experts, warps) + (scales * sizeof(float)) + 15) & ~15;

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes<TSink>(int k, int experts, int warps, (int Teams, int Scales, int RowBytes) tiles)
        where TSink : struct, ITileSink => TileStart<TSink>(k, experts, warps, tiles.Teams * tiles.Scales) + (tiles.Teams * TileStream.Rows * tiles.RowBytes);

    public static void Run<TFormat, TInputs, TSink>(TileLinearArgs a)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TSink : struct, ITileSink
    {
        ArrayView<float> columns = SharedMemory.Allocate<float>(TileStream.Rows);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int k = a.Weights.K, experts = (int)a.RouterSums.Length, warps = Group.DimX >> 5, turn = Group.IdxX >> 5, team = turn / a.Warps, thread = Group.IdxX - (team * a.Warps * 32);
        // Tiles beside each other are other blocks', so that blocks differ by one tile at most.
        int firstRow = ((team * Grid.DimX) + Grid.IdxX) * TileStream.Rows;
        bool owns = thread < TileStream.Sums && firstRow < a.Weights.N;
        ArrayView<float> partials = shared.SubView(PartialStart<TSink>(k, experts), warps * TileStream.Rows * sizeof(float)).Cast<float>();
        ArrayView<uint> router = shared.SubView(RouterStart(k), RouterBytes<TSink>(experts)).Cast<uint>();
        BulkSums sums = Stream<TFormat, TInputs, TSink>(a, shared, router, (team, firstRow));
        BulkTile.Publish(partials, turn * TileStream.Rows, sums);
        // The old value is requested while the others are waited for.
        float old = 0, gain = 1;
        if (TSink.IsResidual && owns)
        {
            old = a.Residual[firstRow + (thread >> 3)];
            if (experts > 0)
                gain = Bf16.ToFloat(a.RouterGain[firstRow + (thread >> 3)]);
        }
        Group.Barrier(); // all warps' sums are there before they are added
        float factor = TInputs.IsNormed ? TileRow.Factor(a.Source, k, shared.Cast<float>()) : 1f;
        if (owns)
        {
            float value = BulkTile.Collect(partials, team * a.Warps * TileStream.Rows, a.Warps, thread) * factor;
            if ((thread & 7) == 0)
                TileLinear.Finish<TSink>(a, columns, firstRow + (thread >> 3), (old, gain), value);
        }
        if (TSink.IsResidual && experts > 0)
        {
            Group.Barrier(); // the block's columns of the residual stream are there before they are multiplied
            TileLinear.AddRouter(a.RouterSums, router, columns);
        }
    }

    private static BulkSums Stream<TFormat, TInputs, TSink>(TileLinearArgs a, ArrayView<byte> shared, ArrayView<uint> router, (int Team, int FirstRow) own)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TSink : struct, ITileSink
    {
        int k = a.Weights.K, experts = (int)a.RouterSums.Length, warps = Group.DimX >> 5, teams = warps / a.Warps, scaleCount = BulkTile.ScaleCount<TFormat>(a.Weights);
        int thread = Group.IdxX - (own.Team * a.Warps * 32), count = own.FirstRow < a.Weights.N ? k / TileStream.ChunkCodes<TFormat>() : 0;
        uint window = SharedWindow.Open(ref shared[0]), barriers = window + (uint)BarrierStart<TSink>(k, experts), barrier = barriers + (uint)(own.Team * sizeof(long));
        BulkTile tile;
        tile.RowBytes = (k >> TFormat.CodesPerWordShift) * sizeof(uint);
        tile.Codes = window + (uint)(TileStart<TSink>(k, experts, warps, teams * scaleCount) + (own.Team * TileStream.Rows * tile.RowBytes));
        BulkTile.MakeBarriers(barriers, teams);
        Group.Barrier(); // barriers are there before copies report to them
        if (thread == 0 && count > 0)
        {
            Mbarrier.ArriveExpecting(barrier, TileStream.Rows * tile.RowBytes);
            tile.Request<TFormat>(a.Weights, (0, own.FirstRow, TileStream.Rows), 0, barrier);
        }
        GridDependency.Release();
        ArrayView<float> scales = shared.SubView(ScaleStart<TSink>(k, experts, warps), teams * scaleCount * sizeof(float)).Cast<float>();
        BulkTile.LoadScales<TFormat>(scales, own.Team * scaleCount, a.Weights, (0, own.FirstRow), (thread, a.Warps * 32));
        if (TSink.IsResidual)
            TileLinear.LoadRouter(a.Router, a.Weights.N, router);
        ArrayView<uint> row = shared.SubView(TileRow.ScratchBytes, 2 * k).Cast<uint>();
        TileLinear.Prepare<TInputs, AsDecoded<TFormat>, TSink>(a, shared, row);
        Group.Barrier(); // the row is there before anyone multiplies by it
        if (count > 0)
            Mbarrier.Wait(barrier, 0);
        BulkSums even = default, odd = default;
        for (int c = thread >> 5; c < count; c += 2 * a.Warps)
        {
            even = Multiply<TFormat>(a, tile, row, (scales, own.Team * scaleCount), c, even);
            if (c + a.Warps < count)
                odd = Multiply<TFormat>(a, tile, row, (scales, own.Team * scaleCount), c + a.Warps, odd);
        }
        return BulkSums.Add(even, odd);
    }

    private static BulkSums Multiply<TFormat>(TileLinearArgs a, BulkTile tile, ArrayView<uint> row, (ArrayView<float> Scales, int First) own, int chunk, BulkSums sums)
        where TFormat : struct, IStreamedFormat
    {
        TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(row, TileStream.InputWord<TFormat>(Group.IdxX & 31), chunk);
        float scale = BulkTile.Scale<TFormat>(own.Scales, own.First, a.Weights, chunk);
        return tile.Multiply<TFormat>(x, chunk, (scale, scale), sums);
    }
}
