using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of the two kernels that go through a list of experts.</summary>
internal struct ListedArgs
{
    /// <summary>Gate and up, one below the other, or down.</summary>
    public StreamedWeights Weights;

    /// <summary>The experts and whose they are.</summary>
    public ExpertListing List;

    /// <summary>[Tokens, K of gate and up] BF16.</summary>
    public ArrayView<ushort> X;

    /// <summary>[pairs, Width] BF16: silu(gate) · up.</summary>
    public ArrayView<ushort> Activated;

    /// <summary>[pairs, N of down] float32; rows of pairs whose expert does not exist stay as they are.</summary>
    public ArrayView<float> Outputs;

    public int ExpertCount;

    /// <summary>Rows of gate, of up, and columns of down.</summary>
    public int Width;
}

/// <summary>
/// The first half of a Mixture-of-Experts layer for the tokens of a list: a[p] = silu(Wgate · x) · (Wup · x) with the expert of pair p and the input of its token, float32 sums, rounded once.
/// </summary>
/// <remarks>
/// A block has 16 gate rows and the 16 up rows beside them of one expert (x), for all tokens that chose it: those are the columns of an mma, eight at a time; more than eight read the weights again. Its four warps
/// take turns along K and add up in shared memory, in warp order. A token's column does not see the other columns, so its bits depend neither on who else is there nor on their number. The expert and the first eight
/// of its tokens are two loads that need nothing but the block's number; weights follow at once. The launch after this one is released only when all blocks have waited, and may read early what is older.
/// </remarks>
internal static class ListedGateUp
{
    public const int Warps = 4;

    /// <summary>Threads of a block: one a sum.</summary>
    public const int Threads = 32 * Warps;

    /// <summary>Sums of one warp: gate and up.</summary>
    private const int WarpSums = 2 * TileStream.Sums;

    /// <summary>Dynamic shared memory of a block.</summary>
    public const int SharedBytes = Warps * WarpSums * sizeof(float);

    public static void Run<TFormat>(ListedArgs a)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<float> partials = SharedMemory.GetDynamic<byte>().Cast<float>();
        GridDependency.Wait();
        GridDependency.Release();
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5, rank = Grid.IdxY, member = a.List.Member(rank, lane >> 2);
        U2 head = a.List.Head(rank);
        int expert = (int)head.X, count = (int)head.Y;
        // The same for the whole block.
        if (count == 0)
            return;
        TilePairPlace place = TilePairs.Locate<TFormat>(a.Weights, expert, Grid.IdxX * TileStream.Rows, (Grid.IdxX * TileStream.Rows) + a.Width);
        for (int first = 0; first < count; first += TileStream.Columns)
        {
            TilePair w0 = TilePairs.LoadWeights<TFormat>(a.Weights, place, warp, false), w1 = TilePairs.LoadWeights<TFormat>(a.Weights, place, warp + Warps, false);
            TilePair w2 = TilePairs.LoadWeights<TFormat>(a.Weights, place, warp + (2 * Warps), false);
            if (first > 0)
                member = a.List.Member(rank, first + (lane >> 2));
            TilePairs.SetColumn<TFormat>(a.Weights, ExpertListing.TokenOf(member), first + (lane >> 2) < count, ref place);
            w0 = TilePairs.LoadInputs<TFormat>(a.X, place, warp, w0);
            w1 = TilePairs.LoadInputs<TFormat>(a.X, place, warp + Warps, w1);
            w2 = TilePairs.LoadInputs<TFormat>(a.X, place, warp + (2 * Warps), w2);
            TilePairSums sums = TilePairs.Multiply<TFormat>(a.Weights, a.X, place, (warp, false), Warps, w0, w1, w2);
            TileStream.Publish(partials, warp * WarpSums, lane, sums.First);
            TileStream.Publish(partials, (warp * WarpSums) + TileStream.Sums, lane, sums.Second);
            // All warps' sums are there before they are added.
            Block.Barrier();
            Store(a, partials, member, count - first, TileStream.MatrixScale<TFormat>(a.Weights, expert));
            Block.Barrier(); // sums have been added before the next ones come
        }
    }

    // A thread has a row of a column: neighbours write neighbours.
    private static void Store(ListedArgs a, ArrayView<float> partials, int member, int columns, float factor)
    {
        int column = Group.IdxX >> 4, row = Group.IdxX & 15, n = (Grid.IdxX * TileStream.Rows) + row, i = (row * TileStream.Columns) + column;
        // Lanes 4·column and on have the column's member.
        int pair = ExpertListing.PairOf((int)WarpOps.Shuffle((uint)member, 4 * column));
        if (column >= columns || n >= a.Width)
            return;
        float gate = TileStream.Collect(partials, i, WarpSums, Warps) * factor;
        float up = TileStream.Collect(partials, i + TileStream.Sums, WarpSums, Warps) * factor;
        a.Activated[((long)pair * a.Width) + n] = Bf16.FromFloat(gate / (1f + XMath.Exp(-gate)) * up);
    }
}
