using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The second half of a Mixture-of-Experts layer for the tokens of a list: y[p] = Wdown · a[p] with the expert of pair p, float32.</summary>
/// <remarks>
/// A warp has 32 rows of one expert, which all exist, and all of K, and writes the sums of the tokens that chose it, eight at a time, itself: no shared memory and no barrier. In a graph the launch before this one is
/// <see cref="ListedGateUp"/>, which releases it after having waited: the list is older, so the expert, its members and the first weights are requested before this kernel waits.
/// </remarks>
internal static class ListedDown
{
    /// <summary>Rows of a warp: within one scale block of a format that has blocks, as of <see cref="SkinnyGemm"/>.</summary>
    public const int WarpRows = 2 * TileStream.Rows;

    public static void Run<TFormat>(ListedArgs a)
        where TFormat : struct, IStreamedFormat
    {
        int lane = Group.IdxX & 31, rank = Grid.IdxY, row = ((Grid.IdxX * (Group.DimX >> 5)) + (Group.IdxX >> 5)) * WarpRows;
        int member = a.List.Member(rank, lane >> 2);
        U2 head = a.List.Head(rank);
        int expert = (int)head.X, count = (int)head.Y;
        // The same for the whole warp.
        if (count == 0 | row >= a.Weights.N)
        {
            // Whoever waits for this launch waits for the one before, too: somebody must have.
            GridDependency.Wait();
            return;
        }
        TilePairPlace place = TilePairs.Locate<TFormat>(a.Weights, expert, row, row + TileStream.Rows);
        for (int first = 0; first < count; first += TileStream.Columns)
        {
            TilePair w0 = TilePairs.LoadWeights<TFormat>(a.Weights, place, 0, true), w1 = TilePairs.LoadWeights<TFormat>(a.Weights, place, 1, true);
            TilePair w2 = TilePairs.LoadWeights<TFormat>(a.Weights, place, 2, true);
            if (first > 0)
                member = a.List.Member(rank, first + (lane >> 2));
            TilePairs.SetColumn<TFormat>(a.Weights, ExpertListing.PairOf(member), first + (lane >> 2) < count, ref place);
            GridDependency.Release();
            GridDependency.Wait();
            w0 = TilePairs.LoadInputs<TFormat>(a.Activated, place, 0, w0);
            w1 = TilePairs.LoadInputs<TFormat>(a.Activated, place, 1, w1);
            w2 = TilePairs.LoadInputs<TFormat>(a.Activated, place, 2, w2);
            TilePairSums sums = TilePairs.Multiply<TFormat>(a.Weights, a.Activated, place, (0, true), 1, w0, w1, w2);
            float factor = TileStream.MatrixScale<TFormat>(a.Weights, expert);
            int column = (lane & 3) * 2, left = count - first;
            Store(a, row, member, (column, left), sums.First.X * factor, sums.First.Z * factor, sums.Second.X * factor, sums.Second.Z * factor);
            Store(a, row, member, (column + 1, left), sums.First.Y * factor, sums.First.W * factor, sums.Second.Y * factor, sums.Second.W * factor);
        }
    }

    // Rows g, g + 8, g + 16 and g + 24 of a column. Lanes 4·column and on have its member.
    private static void Store(ListedArgs a, int row, int member, (int Column, int Columns) at, float y0, float y8, float y16, float y24)
    {
        int pair = ExpertListing.PairOf((int)WarpOps.Shuffle((uint)member, 4 * at.Column)), n = row + ((Group.IdxX & 31) >> 2);
        if (at.Column >= at.Columns)
            return;
        long target = ((long)pair * a.Weights.N) + n;
        a.Outputs[target] = y0;
        a.Outputs[target + 8] = y8;
        a.Outputs[target + 16] = y16;
        a.Outputs[target + 24] = y24;
    }
}
