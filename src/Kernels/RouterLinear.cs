using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of the router in one launch.</summary>
internal struct RouterLinearArgs
{
    /// <summary>What is chosen, and the logits, which are written first.</summary>
    public Router.Args Choice;

    /// <summary>[Experts, K] BF16.</summary>
    public StreamedWeights Weights;

    /// <summary>[Tokens, K] BF16.</summary>
    public ArrayView<ushort> X;

    /// <summary>[⌈Tokens / 8⌉] blocks that are done, zero before and afterwards.</summary>
    public ArrayView<int> Arrived;
}

/// <summary>
/// A router in one launch: logits[t, e] = Σ_k x[t, k] · W[e, k] in float32, then the choice of <see cref="Router"/>.
/// </summary>
/// <remarks>
/// A block has 16 experts and eight tokens, a tile of <see cref="TileStream"/>; its warps take turns along K and add up in a fixed tree. The last block of eight tokens to be
/// done, by an integer counter, chooses for them, a warp a token. Which one that is changes nothing: a token's bits depend on neither the other tokens nor the order of blocks.
/// </remarks>
internal static class RouterLinear
{
    public const int MostTokens = 64, MostExperts = 512;

    // Logits and masses of a warp's token.
    private static int TokenBytes(int experts) => (experts + Router.MaxTopK) * sizeof(float);

    private static int PartialBytes(int warps) => warps * TileStream.Sums * sizeof(float);

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes(int warps, int experts) => PartialBytes(warps) + (warps * TokenBytes(experts));

    public static void Run(RouterLinearArgs a)
    {
        ArrayView<int> arrived = SharedMemory.Allocate<int>(1);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int warps = Group.DimX >> 5, warp = Group.IdxX >> 5, firstToken = Grid.IdxY * TileStream.Columns;
        ArrayView<float> partials = shared.SubView(0, PartialBytes(warps)).Cast<float>();
        F4 sum = Stream(a, firstToken);
        TileStream.Publish(partials, warp * TileStream.Sums, Group.IdxX & 31, sum);
        Block.Barrier(); // all warps' sums are there before they are added
        for (int i = Group.IdxX; i < TileStream.Sums; i += Group.DimX)
        {
            int token = firstToken + (i & 7), expert = (Grid.IdxX * TileStream.Rows) + (i >> 3);
            if (token < a.Choice.Tokens && expert < a.Choice.Experts)
                a.Choice.Logits[((long)token * a.Choice.Experts) + expert] = TileStream.CollectAlone(partials, i, TileStream.Sums, warps);
        }
        Block.Barrier(); // the block's logits are written before it counts
        if (Group.IdxX == 0)
        {
            Fence.Device(); // the logits are there for every block before this one counts
            arrived[0] = Atomic.Add(ref a.Arrived[Grid.IdxY], 1);
            Fence.Device(); // what the others wrote before they counted is seen from here on
        }
        Block.Barrier(); // the whole block knows its number
        if (arrived[0] != Grid.DimX - 1)
            return;
        RouterScratch scratch = default;
        ArrayView<float> own = shared.SubView(PartialBytes(warps) + (warp * TokenBytes(a.Choice.Experts)), TokenBytes(a.Choice.Experts)).Cast<float>();
        scratch.Logits = own.SubView(0, a.Choice.Experts);
        scratch.Masses = own.SubView(a.Choice.Experts, Router.MaxTopK);
        for (int token = firstToken + warp; token < IntrinsicMath.Min(firstToken + TileStream.Columns, a.Choice.Tokens); token += warps)
            Router.Choose<RouterWarp>(a.Choice, token, scratch);
        if (Group.IdxX == 0)
            a.Arrived[Grid.IdxY] = 0;
    }

    // Weights are requested before the kernel waits for the launch before it. Columns beyond the tokens repeat the last one; their sums are not stored.
    private static F4 Stream(RouterLinearArgs a, int firstToken)
    {
        int lane = Group.IdxX & 31, warps = Group.DimX >> 5, c = Group.IdxX >> 5;
        int count = a.Weights.K / TileStream.ChunkCodes<StreamedBf16>(), last = count - 1;
        TilePlace place = TileStream.Locate<StreamedBf16>(a.Weights, Grid.IdxX * TileStream.Rows, lane);
        TileChunk w0 = Load(a, place, IntrinsicMath.Min(c, last)), w1 = Load(a, place, IntrinsicMath.Min(c + warps, last));
        TileChunk w2 = Load(a, place, IntrinsicMath.Min(c + (2 * warps), last)), w3 = Load(a, place, IntrinsicMath.Min(c + (3 * warps), last));
        GridDependency.Release();
        GridDependency.Wait();
        int token = IntrinsicMath.Min(firstToken + (lane >> 2), a.Choice.Tokens - 1);
        long word = ((long)token * (a.Weights.K >> 1)) + TileStream.InputWord<StreamedBf16>(lane);
        TileInputs x0 = Inputs(a, word, IntrinsicMath.Min(c, last)), x1 = Inputs(a, word, IntrinsicMath.Min(c + warps, last));
        TileInputs x2 = Inputs(a, word, IntrinsicMath.Min(c + (2 * warps), last)), x3 = Inputs(a, word, IntrinsicMath.Min(c + (3 * warps), last));
        F4 sum = default;
        if (c < count)
            sum = Multiply(w0, x0, sum);
        if (c + warps < count)
            sum = Multiply(w1, x1, sum);
        if (c + (2 * warps) < count)
            sum = Multiply(w2, x2, sum);
        if (c + (3 * warps) < count)
            sum = Multiply(w3, x3, sum);
        // 16 warps have four chunks of 2,048 columns: what is left over elsewhere is read when it is needed.
        for (c += 4 * warps; c < count; c += warps)
            sum = Multiply(Load(a, place, c), Inputs(a, word, c), sum);
        return sum;
    }

    private static TileChunk Load(RouterLinearArgs a, TilePlace place, int chunk) => TileStream.Load<StreamedBf16>(a.Weights, place, 0, chunk);

    private static TileInputs Inputs(RouterLinearArgs a, long word, int chunk) => TileStream.Inputs<StreamedBf16, DeviceTileMemory>(a.X.Cast<uint>(), word, chunk);

    private static F4 Multiply(TileChunk w, TileInputs x, F4 sum) => TileStream.Multiply<StreamedBf16>(w, x, 1f, 1f, sum);
}
