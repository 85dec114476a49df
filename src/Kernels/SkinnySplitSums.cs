using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The end of a block of <see cref="SkinnySplit"/>: sums of groups meet in shared memory, those of parts of K in global memory.</summary>
internal static class SkinnySplitSums
{
    /// <summary>Called once by every thread of the block, when its group reads no stage any more.</summary>
    public static void Add<TFormat, TOutput, TTiles>(SkinnySplitArgs a, ArrayView<float> shared, ArrayView<int> arrived, SkinnySplitPlace place, SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TOutput : struct, IOutput
        where TTiles : struct, ITiles
    {
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5, warps = Group.DimX >> 5, parts = Grid.DimY;
        int start = (place.Group * SkinnySplit.GroupWords(TTiles.Count)) + (place.Tile * TTiles.Count * SkinnySums.TileSums);
        SkinnySums.Publish(shared, start, lane, sums.Upper0);
        SkinnySums.Publish(shared, start + (SkinnyGemm.Rows / 2), lane, sums.Lower0);
        if (TTiles.Count == 2)
        {
            SkinnySums.Publish(shared, start + SkinnySums.TileSums, lane, sums.Upper1);
            SkinnySums.Publish(shared, start + SkinnySums.TileSums + (SkinnyGemm.Rows / 2), lane, sums.Lower1);
        }
        // All groups' sums are there before they are added.
        Block.Barrier();
        ArrayView<float> partials = a.Partials.Cast<float>();
        long own = OfPart<TTiles>(Grid.IdxY);
        for (int item = warp; item < Items<TTiles>(); item += warps)
        {
            float sum = Groups<TTiles>(shared, item, lane);
            if (parts == 1)
                Store<TFormat, TOutput, TTiles>(a.Product, item, lane, sum);
            else
                partials[own + (item * 32) + lane] = sum;
        }
        if (parts == 1)
            return;
        // The block's sums are written before it counts.
        Block.Barrier();
        if (Group.IdxX == 0)
            arrived[0] = Fence.Count(ref a.Arrived[Grid.IdxX]);
        // The whole block knows its number, and sees what the others wrote before they counted.
        Block.Barrier();
        if (arrived[0] != parts - 1)
            return;
        for (int item = warp; item < Items<TTiles>(); item += warps)
        {
            float sum = 0;
            for (int part = 0; part < parts; part++)
                sum += Interop.IntAsFloat(Mem.LoadL2Word(ref a.Partials[OfPart<TTiles>(part) + (item * 32) + lane]));
            Store<TFormat, TOutput, TTiles>(a.Product, item, lane, sum);
        }
        if (Group.IdxX == 0)
            a.Arrived[Grid.IdxX] = 0;
    }

    // Pairs of a tile of W and a row of x.
    private static int Items<TTiles>()
        where TTiles : struct, ITiles => SkinnySplit.Tiles * SkinnyGemm.Columns * TTiles.Count;

    private static long OfPart<TTiles>(int part)
        where TTiles : struct, ITiles => ((long)(part * Grid.DimX) + Grid.IdxX) * Items<TTiles>() * 32;

    private static float Groups<TTiles>(ArrayView<float> shared, int item, int lane)
        where TTiles : struct, ITiles
    {
        int tileOfX = item / SkinnyGemm.Columns, at = (tileOfX * SkinnySums.TileSums) + ((item - (tileOfX * SkinnyGemm.Columns)) * SkinnySums.ColumnStep) + lane;
        float sum = 0;
        for (int group = 0; group < Group.DimX / Warpgroup.Threads; group++)
            sum += shared[at + (group * SkinnySplit.GroupWords(TTiles.Count))];
        return sum;
    }

    private static void Store<TFormat, TOutput, TTiles>(LinearArgs a, int item, int lane, float sum)
        where TFormat : struct, IStreamedFormat
        where TOutput : struct, IOutput
        where TTiles : struct, ITiles
    {
        int tile = item / (SkinnyGemm.Columns * TTiles.Count), m = item - (tile * SkinnyGemm.Columns * TTiles.Count);
        long n = SkinnySplit.FirstRow() + (tile * SkinnyGemm.Rows) + lane;
        if (n >= a.N || m >= a.M)
            return;
        float scale = SkinnySums.WeightScale<TFormat, StreamedArrangedInputs>(a, (int)n);
        TOutput.Store(a.Y, ((long)m * a.YStride) + n, SkinnySums.Finish<TFormat, StreamedArrangedInputs>(a, sum, m, scale));
    }
}
