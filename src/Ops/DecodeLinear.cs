using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>A layer's router as one token's products feed it.</summary>
/// <param name="Weights"><c>[experts, hidden]</c> BF16, at most 128 experts.</param>
/// <param name="Norm">The norm before it.</param>
/// <param name="Sums"><c>[experts]</c> fixed-point logits before the norm's factor; of one token <see cref="DecodeLinear.RouterLength"/> numbers.</param>
internal readonly record struct RouterFeed(QuantizedMatrix Weights, InputNorm Norm, ArrayView<long> Sums);

/// <summary>
/// Products of one token that do what stands before or behind them as well: <see cref="TileLinear"/>. On devices with 32-lane warps, for weights
/// of one term that stream. Bitwise repeatable.
/// </summary>
internal static class DecodeLinear
{
    // As in LinearPlan: more keep no more loads in flight, and blocks of many warps do not all fit at once.
    private const int LeastWarps = 4, WarpsWanted = 2048;

    private static readonly KernelTraits Traits = new(32 * SkinnyGemm.MostWarps, NeedsWarp32: true, Overlaps: true);

    private static readonly Dictionary<WeightFormat, KernelDefinition<TileLinearArgs>> StoreByFormat = [];
    private static readonly Dictionary<WeightFormat, KernelDefinition<TileLinearArgs>> AddByFormat = [];

    private static readonly KernelDefinition<RouterPostsArgs> OfRouter = new(Kernels.RouterPosts.Run, new KernelTraits(Kernels.RouterPosts.Threads, NeedsWarp32: true, Overlaps: true));

    // For the number of chunks that a warp has in the layers that this is made for.
    private static readonly KernelDefinition<TileLinearArgs> StoreEightFp8 = new(TileLinear.Run<StreamedFp8, RowNormed, TileStore, EightTurns>, Traits);
    private static readonly KernelDefinition<TileLinearArgs> AddFourFp8 = new(TileLinear.Run<StreamedFp8, RowCopied, TileAdd, FourTurns>, Traits);

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = Create();

    /// <summary>Whether products with a matrix run here.</summary>
    public static bool Exists(GpuDevice device, QuantizedMatrix matrix) =>
        device.WarpSize == 32 && device.MaxThreadsPerBlock >= TileStream.Sums && matrix.Count == 1 && StoreByFormat.ContainsKey(matrix.Format) && SkinnyKernels.Exist(matrix.Format, null, matrix.Block)
        && matrix.Format.RowBytes(matrix.K) % SkinnyGemm.ChunkBytes == 0 && matrix.N % TileStream.Rows == 0
        && TileLinear.SharedBytes<TileAdd>(SkinnyGemm.MostWarps, matrix.K, RouterSums.MostExperts) <= device.MaxSharedBytesPerBlock - TileLinear.StaticBytes;

    /// <summary>Whether a router's logits can be fed by the product that adds to the residual stream.</summary>
    public static bool CanFeed(QuantizedMatrix router) => router.Format == WeightFormat.Bf16 && router.N <= RouterSums.MostExperts;

    /// <summary>Length of <see cref="RouterFeed.Sums"/> where one token's experts are chosen from them: the announcement of the choice stands behind the sums.</summary>
    public static int RouterLength(int experts) => RouterSums.Length(experts);

    /// <summary><c>y = W · (bf16(residual · gain) · rsqrt(mean(residual²) + epsilon))</c>; the router's sums, and the announcement behind them, become zero.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="matrix"><c>W[N, K]</c>.</param>
    /// <param name="residual"><c>[K]</c> float32.</param>
    /// <param name="norm">Gains and epsilon.</param>
    /// <param name="y"><c>[N]</c> BF16, rounded once.</param>
    /// <param name="sums">What is to become zero; may be empty.</param>
    /// <exception cref="ArgumentException">A view is too short or lives on another device.</exception>
    public static void Store(GpuStream stream, QuantizedMatrix matrix, ArrayView<float> residual, in InputNorm norm, ArrayView<BFloat16> y, ArrayView<long> sums)
    {
        Require(stream, matrix);
        Shape.Require(stream, residual, 1, matrix.K, nameof(residual));
        Shape.Require(stream, norm.Gain, 1, matrix.K, nameof(norm));
        Shape.RequireEpsilon(norm.Epsilon, nameof(norm));
        Shape.Require(stream, y, 1, matrix.N, nameof(y));
        var args = new TileLinearArgs
        {
            Weights = ExpertMlp.Streamed(matrix),
            Source = new TileSource { Residual = residual, Gain = norm.Gain.Cast<ushort>(), Epsilon = norm.Epsilon },
            Y = y.Cast<ushort>(),
            RouterSums = sums,
        };
        bool eight = matrix.Format == WeightFormat.Fp8Block && Turns(stream.Device, matrix) == EightTurns.Count;
        Launch<TileStore>(stream, eight ? StoreEightFp8 : StoreByFormat[matrix.Format], matrix, args);
    }

    /// <summary><c>residual += W · x</c>, and what that adds to the router's sums, if there is one.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="matrix"><c>W[N, K]</c>.</param>
    /// <param name="x"><c>[K]</c> BF16.</param>
    /// <param name="residual"><c>[N]</c> float32.</param>
    /// <param name="router">The router behind it, its sums zero before.</param>
    /// <exception cref="ArgumentException">A view is too short or lives on another device.</exception>
    public static void Add(GpuStream stream, QuantizedMatrix matrix, ArrayView<BFloat16> x, ArrayView<float> residual, in RouterFeed? router)
    {
        Require(stream, matrix);
        Shape.Require(stream, x, 1, matrix.K, nameof(x));
        Shape.Require(stream, residual, 1, matrix.N, nameof(residual));
        var args = new TileLinearArgs { Weights = ExpertMlp.Streamed(matrix), Source = new TileSource { X = x.Cast<ushort>() }, Residual = residual };
        if (router is { } feed)
        {
            RequireFeed(stream, matrix, feed, 1);
            args.RouterSums = feed.Sums.SubView(0, feed.Weights.N);
            args.Router = feed.Weights.Codes.View.Cast<ushort>();
            args.RouterGain = feed.Norm.Gain.Cast<ushort>();
        }
        bool four = matrix.Format == WeightFormat.Fp8Block && Turns(stream.Device, matrix) == FourTurns.Count;
        Launch<TileAdd>(stream, four ? AddFourFp8 : AddByFormat[matrix.Format], matrix, args);
    }

    /// <summary>Words of <see cref="Feed"/>'s logits, and of the announcement of the choice behind them.</summary>
    public static int PostsLength(int experts) => Kernels.RouterPosts.Length(experts);

    /// <summary>A router's own product with a state that is normed already, for <see cref="ExpertMlp.ApplyFed"/>, which must follow at once: it makes the logits zero again.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="router">BF16 <c>[experts, hidden]</c>, for which <see cref="CanFeed"/> and <see cref="Exists"/>.</param>
    /// <param name="x"><c>[hidden]</c> BF16.</param>
    /// <param name="posts"><see cref="PostsLength"/> words, zero but for the announcement; written.</param>
    /// <exception cref="ArgumentException">A view is too short or lives on another device.</exception>
    public static void Feed(GpuStream stream, QuantizedMatrix router, ArrayView<BFloat16> x, ArrayView<uint> posts)
    {
        Require(stream, router);
        if (!CanFeed(router))
            throw new ArgumentException($"A router of [{router.N}, {router.K}] in {router.Format.Title()} cannot be fed.", nameof(router));
        Shape.Require(stream, x, 1, router.K, nameof(x));
        if (!Shape.IsVectorAligned(x, 16))
            throw new ArgumentException("Inputs must lie on a 16-byte boundary.", nameof(x));
        Shape.Require(stream, posts, 1, PostsLength(router.N), nameof(posts));
        var args = new RouterPostsArgs
        {
            X = x.Cast<ushort>(),
            Weights = router.Codes.View.Cast<ushort>(),
            Posts = Kernels.RouterPosts.Logits(posts, router.N),
            Announced = Kernels.RouterPosts.Announced(posts, router.N),
            K = router.K,
        };
        stream.Device.Launch(OfRouter, stream, (router.N, 1, 1), Kernels.RouterPosts.Threads, 0, args);
    }

    internal static void RequireFeed(GpuStream stream, QuantizedMatrix matrix, in RouterFeed router, int tokens)
    {
        if (!CanFeed(router.Weights) || router.Weights.K != matrix.N)
            throw new ArgumentException($"A router of [{router.Weights.N}, {router.Weights.K}] in {router.Weights.Format.Title()} cannot be fed.", nameof(router));
        Shape.Require(stream, router.Sums, tokens, router.Weights.N, nameof(router));
        Shape.Require(stream, router.Norm.Gain, 1, matrix.N, nameof(router));
    }

    internal static void Require(GpuStream stream, QuantizedMatrix matrix)
    {
        ArgumentNullException.ThrowIfNull(stream);
        stream.Device.RequireSame(matrix.Device, nameof(matrix));
        if (!Exists(stream.Device, matrix))
            throw new NotSupportedException($"{matrix.Format.Title()} weights of [{matrix.N}, {matrix.K}] do not stream on {stream.Device.Name}.");
    }

    private static void Launch<TSink>(GpuStream stream, KernelDefinition<TileLinearArgs> kernel, QuantizedMatrix matrix, in TileLinearArgs args)
        where TSink : struct, ITileSink
    {
        int tiles = matrix.N / TileStream.Rows, warps = Warps(stream.Device, matrix);
        int shared = TileLinear.SharedBytes<TSink>(warps, matrix.K, (int)args.RouterSums.Length);
        stream.Device.Launch(kernel, stream, (tiles, 1, 1), 32 * warps, shared, args);
    }

    // Depends on the matrix only: a row's sums have one order for any number of rows.
    internal static int Warps(GpuDevice device, QuantizedMatrix matrix)
    {
        int chunks = (int)(matrix.Format.RowBytes(matrix.K) / SkinnyGemm.ChunkBytes), tiles = matrix.N / TileStream.Rows;
        int most = Math.Min(SkinnyGemm.MostWarps, device.MaxThreadsPerBlock / 32), warps = Math.Min(LeastWarps, most);
        while (2 * warps <= Math.Min(most, chunks) && 2 * warps * tiles <= WarpsWanted)
            warps *= 2;
        return warps;
    }

    // Chunks of a warp, 0 where not all have the same number.
    private static int Turns(GpuDevice device, QuantizedMatrix matrix)
    {
        int chunks = (int)(matrix.Format.RowBytes(matrix.K) / SkinnyGemm.ChunkBytes), warps = Warps(device, matrix);
        return chunks % warps == 0 ? chunks / warps : 0;
    }

    private static KernelDefinition[] Create()
    {
        AddFormat<StreamedBf16>(WeightFormat.Bf16);
        AddFormat<StreamedFp8>(WeightFormat.Fp8Block);
        AddFormat<StreamedNvfp4>(WeightFormat.Nvfp4);
        AddFormat<StreamedInt4>(WeightFormat.Int4);
        AddFormat<StreamedInt4Zero>(WeightFormat.Int4Zero);
        return [.. StoreByFormat.Values, .. AddByFormat.Values];
    }

    private static void AddFormat<TFormat>(WeightFormat format)
        where TFormat : struct, IStreamedFormat
    {
        StoreByFormat.Add(format, new(TileLinear.Run<TFormat, RowNormed, TileStore, AnyTurns>, Traits));
        AddByFormat.Add(format, new(TileLinear.Run<TFormat, RowCopied, TileAdd, AnyTurns>, Traits));
    }
}
