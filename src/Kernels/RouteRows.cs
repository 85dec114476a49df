using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of the launch between <see cref="TileRows"/> and the experts.</summary>
internal struct RouteRowsArgs
{
    /// <summary>The residual streams, the gains and the normed states.</summary>
    public RmsNorm.Args Norm;

    /// <summary>[Rows, Experts] sums that <see cref="TileRows"/> left; zero afterwards.</summary>
    public ArrayView<long> Sums;

    /// <summary>[Rows, Experts] float32: the logits, for whoever looks at them.</summary>
    public ArrayView<float> Logits;

    /// <summary>[Rows, TopK].</summary>
    public ArrayView<int> Experts;

    /// <summary>[Rows, TopK] float32.</summary>
    public ArrayView<float> Weights;

    /// <summary>[Rows]: negative where there is no token, which gets no expert.</summary>
    public ArrayView<int> Positions;

    public int ExpertCount;
    public int TopK;
    public int Normalize;
}

/// <summary>The norm before the experts and the choice of experts, a block a token: all threads norm, one warp chooses from the sums.</summary>
internal static class RouteRows
{
    public static void Run(RouteRowsArgs a)
    {
        ArrayView<float> scratch = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        GridDependency.Release();
        GridDependency.Wait();
        for (int row = Grid.IdxX; row < a.Norm.Rows; row += Grid.DimX)
        {
            // The same for the whole block.
            if (a.Positions[row] < 0)
            {
                if (Group.IdxX < a.TopK)
                    Store(a, row, -1, 0);
                continue;
            }
            long start = (long)row * a.Norm.Width;
            float factor = RmsNorm.Normalize(a.Norm, start, scratch);
            if (Group.IdxX < 32)
                Route(a, row, factor);
        }
    }

    // One warp.
    private static void Route(RouteRowsArgs a, int row, float factor)
    {
        int lane = Group.IdxX & 31;
        RouterArgs router = default;
        router.Sums = a.Sums.SubView((long)row * a.ExpertCount, a.ExpertCount);
        router.Logits = a.Logits.SubView((long)row * a.ExpertCount, a.ExpertCount);
        router.Normalize = a.Normalize;
        RouterChoice choice = RouterSums.Select(router, a.TopK);
        float weight = RouterSums.Weight(router, choice, a.TopK, factor);
        RouterSums.StoreLogits(router, choice, factor);
        if (lane < a.TopK)
            Store(a, row, choice.ChosenExpert, weight);
        RouterSums.Clear(router);
    }

    private static void Store(RouteRowsArgs a, int row, int expert, float weight)
    {
        long place = ((long)row * a.TopK) + Group.IdxX;
        a.Experts[place] = expert;
        a.Weights[place] = weight;
    }
}
