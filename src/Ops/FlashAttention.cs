using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.FlashAttention;
using Queries32 = GpuKit.Ilgpu.Kernels.FlashQueryBoth<GpuKit.Ilgpu.Kernels.FlashQuery, GpuKit.Ilgpu.Kernels.FlashQuery>;
using Sums32 = GpuKit.Ilgpu.Kernels.FlashBoth<GpuKit.Ilgpu.Kernels.FlashUnit, GpuKit.Ilgpu.Kernels.FlashUnit>;

namespace GpuKit.Ilgpu;

/// <summary><see cref="Attention"/> of many tokens on tensor cores: which heads it takes, and how rows are spread over blocks.</summary>
internal static class FlashAttention
{
    /// <summary>Tokens from which <see cref="Attention"/> takes it: with fewer, most of a warp's 16 rows would be none where a group is small.</summary>
    public const int FromTokens = 16;

    private static readonly Dictionary<int, Variant> ByHeadDim = Create<Queries32, Sums32>();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByHeadDim.Values.Select(v => v.Definition);

    private readonly record struct Variant(KernelDefinition<FlashAttentionArgs> Definition, int Positions);

    /// <summary>Whether there is a kernel for this call; views begin on 16-byte words, and so do their rows.</summary>
    public static bool Exists(GpuDevice device, int headDim, AttentionShape shape) =>
        device.WarpSize == 32 && shape.Tokens >= FromTokens && (long)shape.Tokens * shape.QueryHeads <= int.MaxValue - (Kernel.MostWarps * Kernel.WarpRows)
        && ByHeadDim.TryGetValue(headDim, out Variant variant) && FlashTiles.SharedBytes(variant.Positions, headDim) <= device.MaxSharedBytesPerBlock;

    /// <summary>Whether heads of this width run on the device, given enough tokens.</summary>
    public static bool RunsOn(GpuDevice device, int headDim) => Exists(device, headDim, new AttentionShape(FromTokens, 1));

    /// <summary>Launches it; arguments were checked. Tests give the warps of a block.</summary>
    public static void Launch(GpuStream stream, in FlashAttentionArgs args, int headDim, int? blockWarps = null)
    {
        Variant variant = ByHeadDim[headDim];
        GpuDevice device = stream.Device;
        int rows = args.Tokens * args.GroupSize, warps = blockWarps ?? Warps(device, rows, args.KvHeads);
        device.Launch(variant.Definition, stream, (Tiles(rows, warps) * args.KvHeads, 1, 1), 32 * warps, FlashTiles.SharedBytes(variant.Positions, headDim), args);
    }

    // Half as many rows a block where whole blocks would leave multiprocessors idle.
    private static int Warps(GpuDevice device, int rows, int kvHeads)
    {
        int most = Math.Min(Kernel.MostWarps, device.MaxThreadsPerBlock / 32);
        return most == Kernel.MostWarps && (long)Tiles(rows, most) * kvHeads < device.MultiprocessorCount ? most / 2 : most;
    }

    private static int Tiles(int rows, int warps) => (rows + (warps * Kernel.WarpRows) - 1) / (warps * Kernel.WarpRows);

    // 96 columns are twice three times 16, so that all parts of a composition are alike (FlashQueryThree).
    // With 256 columns a lane has 128 sums and 64 words of queries: scores of 32 positions are what registers have room for.
    private static Dictionary<int, Variant> Create<TQueries, TSums>()
        where TQueries : struct, IFlashQueries<TQueries>
        where TSums : struct, IFlashSums<TSums>
    {
        var variants = new Dictionary<int, Variant>();
        Add<FlashQueryBoth<TQueries, TQueries>, FlashBoth<TSums, TSums>, FlashBoth<TSums, TSums>>(variants);
        AddTwice<FlashQueryThree<FlashQuery>, FlashBoth<TSums, TSums>, FlashThree<FlashUnit>>(variants);
        AddTwice<FlashQueryBoth<TQueries, TQueries>, FlashBoth<TSums, TSums>, FlashBoth<TSums, TSums>>(variants);
        AddTwice<FlashQueryBoth<FlashQueryBoth<TQueries, TQueries>, FlashQueryBoth<TQueries, TQueries>>, TSums, FlashBoth<FlashBoth<TSums, TSums>, FlashBoth<TSums, TSums>>>(variants);
        return variants;
    }

    private static void AddTwice<TQueries, TScores, TOutputs>(Dictionary<int, Variant> variants)
        where TQueries : struct, IFlashQueries<TQueries>
        where TScores : struct, IFlashSums<TScores>
        where TOutputs : struct, IFlashSums<TOutputs> => Add<FlashQueryBoth<TQueries, TQueries>, TScores, FlashBoth<TOutputs, TOutputs>>(variants);

    private static void Add<TQueries, TScores, TOutputs>(Dictionary<int, Variant> variants)
        where TQueries : struct, IFlashQueries<TQueries>
        where TScores : struct, IFlashSums<TScores>
        where TOutputs : struct, IFlashSums<TOutputs> =>
        variants.Add(TOutputs.Columns, new Variant(new(Kernel.Run<TQueries, TScores, TOutputs>, new KernelTraits(32 * Kernel.MostWarps, NeedsWarp32: true)), TScores.Columns));
}
