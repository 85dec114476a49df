using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of <see cref="RouterPosts"/>.</summary>
internal struct RouterPostsArgs
{
    /// <summary>[K] BF16.</summary>
    public ArrayView<ushort> X;

    /// <summary>[Experts, K] BF16.</summary>
    public ArrayView<ushort> Weights;

    /// <summary>[copies, Experts] float32 as bits, zero before.</summary>
    public ArrayView<uint> Posts;

    /// <summary>What the launch after this one announces, made zero.</summary>
    public ArrayView<uint> Announced;

    public int K;
}

/// <summary>
/// A router's logits of one token whose state is normed already, an expert a block, for a launch that asks for them while this one runs: a logit's lowest bit is set, so that it is there when its word is not zero.
/// </summary>
/// <remarks>
/// The weights are requested before the launch before has ended. Only then is the next one released: what is older than this launch it may read at once. Its blocks all want all logits; of one line of the cache they would
/// wait for each other, so there are several copies.
/// </remarks>
internal static class RouterPosts
{
    public const int Threads = 128;

    /// <summary>Copies of the logits, a power of two.</summary>
    public const int Copies = 16;

    private const int Warps = Threads / 32;

    private const float Limit = 2147483648f;

    /// <summary>Words of the logits with the announcement behind them.</summary>
    public static int Length(int experts) => (Copies * experts) + Router.MaxTopK;

    /// <summary>The logits' place in so many words.</summary>
    public static ArrayView<uint> Logits(ArrayView<uint> posts, int experts) => posts.SubView(0, Copies * experts);

    /// <summary>The announcement's, behind them.</summary>
    public static ArrayView<uint> Announced(ArrayView<uint> posts, int experts) => posts.SubView(Copies * experts, Router.MaxTopK);

    public static void Run(RouterPostsArgs a)
    {
        ArrayView<float> partials = SharedMemory.Allocate<float>(Warps);
        ArrayView<uint> weights = a.Weights.Cast<uint>(), x = a.X.Cast<uint>();
        int words = a.K >> 1, first = Group.IdxX * 4, second = first + (4 * Threads), third = second + (4 * Threads);
        long row = (long)Grid.IdxX * words;
        U4 w0 = first < words ? Mem.LoadReadOnly(ref weights[row + first]) : default, w1 = second < words ? Mem.LoadReadOnly(ref weights[row + second]) : default;
        GridDependency.Wait();
        // Not before: ExpertGateUp reads x as soon as it is released.
        GridDependency.Release();
        U4 x0 = first < words ? Mem.LoadL2(ref x[first]) : default, x1 = second < words ? Mem.LoadL2(ref x[second]) : default;
        for (int i = (Grid.IdxX * Threads) + Group.IdxX; i < a.Announced.Length; i += Grid.DimX * Threads)
            a.Announced[i] = 0;
        float sum = Dot(w1, x1, Dot(w0, x0, 0));
        for (int i = third; i < words; i += 4 * Threads)
            sum = Dot(Mem.LoadReadOnly(ref weights[row + i]), Mem.LoadL2(ref x[i]), sum);
        sum = WarpOps.Sum(sum);
        if ((Group.IdxX & 31) == 0)
            partials[Group.IdxX >> 5] = sum;
        Block.Barrier(); // all warps' sums are there before they are added
        if (Group.IdxX < Copies)
        {
            // Within what sums can hold, and no NaN, which would be larger than all.
            float logit = (partials[0] + partials[1]) + (partials[2] + partials[3]);
            logit = logit >= -Limit ? IntrinsicMath.Min(logit, Limit) : -Limit;
            Mem.StoreRelaxed(ref a.Posts[((long)Group.IdxX * Grid.DimX) + Grid.IdxX], Interop.FloatAsInt(logit) | 1);
        }
    }

    /// <summary>Makes the logits zero for the next token. By the whole grid, when nobody reads them any more.</summary>
    public static void Clear(ArrayView<uint> posts)
    {
        for (int i = (Grid.IdxX * Group.DimX) + Group.IdxX; i < posts.Length; i += Grid.DimX * Group.DimX)
            posts[i] = 0;
    }

    private static float Dot(U4 w, U4 x, float sum)
    {
        float upper = Dot(w.Y, x.Y, Dot(w.X, x.X, sum));
        return upper + Dot(w.W, x.W, Dot(w.Z, x.Z, 0));
    }

    private static float Dot(uint w, uint x, float sum) => Fast.Fma(Bf16.High(w), Bf16.High(x), Fast.Fma(Bf16.Low(w), Bf16.Low(x), sum));
}
