using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The second half of a Mixture-of-Experts layer for the tokens of a list: y[p] = Wdown · a[p] with the expert of pair p, float32.</summary>
/// <remarks>
/// A warp has 32 rows of one expert and all of K, and writes the sums of the tokens that chose it, eight at a time, itself: no shared memory and no barrier. In a graph the launch before this one is
/// <see cref="ListedGateUp"/>, which releases it after having waited: the list is older, so the expert, its members and the first weights are requested before this kernel waits.
/// </remarks>
internal static class ListedDown
{
    /// <summary>Rows of a warp.</summary>
    public const int WarpRows = 2 * TileStream.Rows;

    // EXPERIMENT
    private static readonly int KWarps = int.TryParse(System.Environment.GetEnvironmentVariable("GPUKIT_X_DOWN_K"), out int v) ? v : 1;

    public static int SharedBytes(int warps) => KWarps == 1 ? 0 : warps * 1024;

    public static int RowsOf(int warps) => warps / KWarps * WarpRows;

    public static void Run<TFormat>(ListedArgs a)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<float> partials = SharedMemory.GetDynamic<byte>().Cast<float>();
        int warp = Group.IdxX >> 5, row = ((Grid.IdxX * ((Group.DimX >> 5) / KWarps)) + (warp / KWarps)) * WarpRows;
        for (int rank = Grid.IdxY; rank < a.List.Ranks; rank += Grid.DimY)
        {
            int member = a.List.Member(rank, (Group.IdxX & 31) >> 2);
            U2 head = a.List.Head(rank);
            // The same for the whole warp.
            if (head.Y == 0 || (KWarps == 1 && row >= a.Weights.N))
                break;
            RunExpert<TFormat>(a, partials, row, rank, head, member);
        }
        // Whoever waits for this launch waits for the one before, too: somebody must have.
        GridDependency.Wait();
    }

    private static void RunExpert<TFormat>(ListedArgs a, ArrayView<float> partials, int row, int rank, U2 head, int member)
        where TFormat : struct, IStreamedFormat
    {
        int expert = (int)head.X, count = (int)head.Y, lane = Group.IdxX & 31, warp = Group.IdxX >> 5, turn = warp % KWarps;
        TilePairPlace place = TilePairs.Locate<TFormat>(a.Weights, expert, row, row + TileStream.Rows);
        float factor = TileStream.MatrixScale<TFormat>(a.Weights, expert);
        for (int first = 0; first < count; first += TileStream.Columns)
        {
            TilePair w0 = TilePairs.LoadWeights<TFormat>(a.Weights, place, turn), w1 = TilePairs.LoadWeights<TFormat>(a.Weights, place, turn + KWarps), w2 = TilePairs.LoadWeights<TFormat>(a.Weights, place, turn + (2 * KWarps));
            if (first > 0)
                member = a.List.Member(rank, first + (lane >> 2));
            TilePairs.SetColumn<TFormat>(a.Weights, ExpertListing.PairOf(member), first + (lane >> 2) < count, ref place);
            GridDependency.Release();
            GridDependency.Wait();
            w0 = TilePairs.LoadInputs<TFormat>(a.Activated, place, turn, w0);
            w1 = TilePairs.LoadInputs<TFormat>(a.Activated, place, turn + KWarps, w1);
            w2 = TilePairs.LoadInputs<TFormat>(a.Activated, place, turn + (2 * KWarps), w2);
            TilePairSums sums = TilePairs.Multiply<TFormat>(a.Weights, a.Activated, place, turn, KWarps, w0, w1, w2);
            if (KWarps > 1)
            {
                int at = (warp * 256) + lane;
                if (turn > 0)
                {
                    Publish(partials, at, sums.First);
                    Publish(partials, at + 128, sums.Second);
                }
                Group.Barrier();
                if (turn == 0)
                    for (int i = 1; i < KWarps; i++)
                    {
                        sums.First = Plus(partials, at + (256 * i), sums.First);
                        sums.Second = Plus(partials, at + (256 * i) + 128, sums.Second);
                    }
                Group.Barrier();
                if (turn > 0)
                    continue;
            }
            int column = (lane & 3) * 2, left = count - first;
            Store(a, row, member, (column, left), sums.First.X * factor, sums.First.Z * factor, sums.Second.X * factor, sums.Second.Z * factor);
            Store(a, row, member, (column + 1, left), sums.First.Y * factor, sums.First.W * factor, sums.Second.Y * factor, sums.Second.W * factor);
        }
    }

    private static void Publish(ArrayView<float> partials, int at, F4 sum)
    {
        partials[at] = sum.X;
        partials[at + 32] = sum.Y;
        partials[at + 64] = sum.Z;
        partials[at + 96] = sum.W;
    }

    private static F4 Plus(ArrayView<float> partials, int at, F4 sum)
    {
        sum.X = Fast.Add(sum.X, partials[at]);
        sum.Y = Fast.Add(sum.Y, partials[at + 32]);
        sum.Z = Fast.Add(sum.Z, partials[at + 64]);
        sum.W = Fast.Add(sum.W, partials[at + 96]);
        return sum;
    }

    // Rows g, g + 8, g + 16 and g + 24 of a column. Lanes 4·column and on have its member.
    private static void Store(ListedArgs a, int row, int member, (int Column, int Columns) at, float y0, float y8, float y16, float y24)
    {
        int pair = ExpertListing.PairOf((int)WarpOps.Shuffle((uint)member, 4 * at.Column)), n = row + ((Group.IdxX & 31) >> 2);
        if (at.Column >= at.Columns)
            return;
        long target = ((long)pair * a.Weights.N) + n;
        Put(a, target, n, y0);
        Put(a, target + 8, n + 8, y8);
        Put(a, target + 16, n + 16, y16);
        Put(a, target + 24, n + 24, y24);
    }

    private static void Put(ListedArgs a, long target, int n, float y)
    {
        if (n < a.Weights.N)
            a.Outputs[target] = y;
    }
}
