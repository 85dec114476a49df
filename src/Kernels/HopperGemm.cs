using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Matrix products at the speed of Hopper's tensor cores (sm_90a): y[m, n] = Σ_k x[m, k] · W[n, k].
/// </summary>
/// <remarks>
/// A block is three warpgroups with one job each for its whole life. One thread of the first asks the copy engine for tiles of x and W, 128
/// bytes of K at a time, into a ring of stages in shared memory; the other two multiply what has landed and give the stage back. Two barriers
/// a stage say "full" and "empty", so copies run ahead as far as the ring allows and no thread ever waits for memory with an
/// instruction. The multiplying warpgroups take over most of the first one's registers for their accumulators. Blocks stay and
/// take tile after tile; the ring does not notice where one ends. y leaves through shared memory, too, while the next tile is multiplied.
/// In a cluster two blocks with neighbouring rows share a tile of W: each loads half of it into both, since L2 could not feed
/// every multiprocessor alone. With scales (<see cref="IHopperProduct.IsScaled"/>) the sums over 128 columns of K are added to float32 totals with the
/// product of both scales, as DeepSeek-V3 does. The order of summation along K is fixed; edges are zeros that the copy engine fills in.
/// </remarks>
internal static class HopperGemm
{
    public const int Threads = 3 * Warpgroup.Threads;

    /// <summary>Rows of y that a warpgroup computes at once.</summary>
    public const int WarpgroupRows = 64;

    /// <summary>Bytes of K that a step takes of each row.</summary>
    public const int StepBytes = 128;

    /// <summary>Bytes of a barrier.</summary>
    public const int BarrierBytes = 8;

    private const int Multipliers = 2, ProducerRegisters = 24, MultiplierRegisters = 240;

    /// <summary>Rows of a block's tile.</summary>
    public static int TileRows<TProduct>()
        where TProduct : struct, IHopperProduct => TProduct.SharesRows ? WarpgroupRows : Multipliers * WarpgroupRows;

    /// <summary>Columns of a block's tile.</summary>
    public static int TileColumns<TProduct>()
        where TProduct : struct, IHopperProduct => TProduct.SharesRows ? Multipliers * TProduct.Columns : TProduct.Columns;

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes<TProduct>()
        where TProduct : struct, IHopperProduct => Barriers<TProduct>() + (2 * TProduct.Stages * BarrierBytes);

    /// <summary>Bytes of one stage of the ring.</summary>
    public static int StageBytes<TProduct>()
        where TProduct : struct, IHopperProduct => (TileRows<TProduct>() + TileColumns<TProduct>()) * StepBytes;

    private static int Slabs<TProduct>()
        where TProduct : struct, IHopperProduct => TProduct.Stages * StageBytes<TProduct>();

    private static int Barriers<TProduct>()
        where TProduct : struct, IHopperProduct => Slabs<TProduct>() + (Multipliers * HopperStore.Bytes);

    public static void Run<TProduct, TOutput, TCluster>(HopperArgs a)
        where TProduct : struct, IHopperProduct
        where TOutput : struct, IHopperOutput
        where TCluster : struct, IClusterSize
    {
        Wgmma.Declare();
        uint shared = SharedWindow.Open(ref SharedMemory.GetDynamic<byte>()[0]);
        uint full = shared + (uint)Barriers<TProduct>(), empty = full + (uint)(TProduct.Stages * BarrierBytes);
        if (Group.IdxX == 0)
        {
            for (int i = 0; i < TProduct.Stages; i++)
            {
                Mbarrier.Initialize(full + (uint)(i * BarrierBytes), 1);
                Mbarrier.Initialize(empty + (uint)(i * BarrierBytes), Multipliers * 4 * TCluster.Count);
            }
            Mbarrier.FenceInitialized();
        }
        // No copy starts and nobody waits before the barriers exist, in both blocks of a cluster.
        if (TCluster.Count > 1)
            Cluster.Meet();
        else
            Block.Barrier();
        if (Group.IdxX < Warpgroup.Threads)
        {
            Warpgroup.GiveRegisters(ProducerRegisters);
            if (Group.IdxX == 0)
                Produce<TProduct, TCluster>(a, shared, full, empty);
        }
        else
        {
            Warpgroup.TakeRegisters(MultiplierRegisters);
            Consume<TProduct, TOutput, TCluster>(a, shared, full, empty);
        }
        if (TCluster.Count > 1)
        {
            // A block's barriers are arrived at by its neighbour: neither leaves before the other is done.
            Warp.Barrier();
            Cluster.Meet();
        }
    }

    private static void Produce<TProduct, TCluster>(HopperArgs a, uint shared, uint full, uint empty)
        where TProduct : struct, IHopperProduct
        where TCluster : struct, IClusterSize
    {
        HopperRing ring = default;
        int rank = TCluster.Count > 1 ? Grid.IdxX & 1 : 0;
        int first = TCluster.Count > 1 ? Grid.IdxX >> 1 : Grid.IdxX, stride = TCluster.Count > 1 ? Grid.DimX >> 1 : Grid.DimX;
        int part = TileColumns<TProduct>() / TCluster.Count;
        for (int tile = first; tile < a.RowTiles * a.ColumnTiles; tile += stride)
        {
            HopperTile place = HopperTile.Locate<TProduct, TCluster>(a, tile, rank);
            for (int step = 0; step < a.Steps; step++)
            {
                uint stage = shared + (uint)(ring.Stage * StageBytes<TProduct>()), arrived = full + (uint)(ring.Stage * BarrierBytes);
                int k = step * (StepBytes >> TProduct.ElementShift);
                // The stage's last products are done (at once in the ring's first round).
                Mbarrier.Wait(empty + (uint)(ring.Stage * BarrierBytes), ring.Parity ^ 1);
                Mbarrier.ArriveExpecting(arrived, StageBytes<TProduct>());
                Tma.Load(a.Input, HopperArgs.InputMap, stage, k, place.Row, arrived);
                uint weights = stage + (uint)((TileRows<TProduct>() + (rank * part)) * StepBytes);
                if (TCluster.Count > 1)
                    Tma.LoadForCluster(a.Weight, HopperArgs.WeightMap, weights, k, place.Column + (rank * part), arrived, 3);
                else
                    Tma.Load(a.Weight, HopperArgs.WeightMap, weights, k, place.Column, arrived);
                ring.Advance<TProduct>();
            }
        }
    }

    private static void Consume<TProduct, TOutput, TCluster>(HopperArgs a, uint shared, uint full, uint empty)
        where TProduct : struct, IHopperProduct
        where TOutput : struct, IHopperOutput
        where TCluster : struct, IClusterSize
    {
        HopperRing ring = default;
        int warpgroup = (Group.IdxX >> 7) - 1, rank = TCluster.Count > 1 ? Grid.IdxX & 1 : 0;
        int first = TCluster.Count > 1 ? Grid.IdxX >> 1 : Grid.IdxX, stride = TCluster.Count > 1 ? Grid.DimX >> 1 : Grid.DimX;
        uint rows = TProduct.SharesRows ? 0 : (uint)(warpgroup * WarpgroupRows * StepBytes);
        uint columns = (uint)((TileRows<TProduct>() + (TProduct.SharesRows ? warpgroup * TProduct.Columns : 0)) * StepBytes);
        uint slabs = shared + (uint)(Slabs<TProduct>() + (warpgroup * HopperStore.Bytes));
        if (TProduct.IsScaled && warpgroup == 1)
            Warpgroup.GiveTurn(HopperSums.FirstTurn);
        for (int tile = first; tile < a.RowTiles * a.ColumnTiles; tile += stride)
        {
            HopperTile place = HopperTile.Locate<TProduct, TCluster>(a, tile, rank);
            if (TProduct.SharesRows)
                place.Column += warpgroup * TProduct.Columns;
            else
                place.Row += warpgroup * WarpgroupRows;
            if (TProduct.IsScaled)
                HopperSums.Scaled<TProduct, TCluster>(a, place, (shared + rows, shared + columns), full, empty, ref ring);
            else
                HopperSums.Plain<TProduct, TCluster>(a, (shared + rows, shared + columns), full, empty, ref ring);
            HopperStore.Tile<TOutput>(a, place, slabs, warpgroup, TProduct.Columns);
        }
        // The other's last turn is given to nobody.
        if (TProduct.IsScaled && warpgroup == 0)
            Warpgroup.AwaitTurn(HopperSums.FirstTurn);
        // Shared memory stays until the last stores have read it.
        if ((Group.IdxX & (Warpgroup.Threads - 1)) == 0)
            Tma.WaitRead(0);
    }
}
