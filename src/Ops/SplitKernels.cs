using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;
using Rows32 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair2>>;
using Rows64 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair2>>>;

namespace GpuKit.Ilgpu;

/// <summary>What the plan must know of a kernel of <see cref="SplitGemm"/>.</summary>
/// <param name="Format">Weight format.</param>
/// <param name="Rows">Rows of x of a tile, 32 or 64.</param>
/// <param name="Columns">Rows of W of a tile, columns of y: 64 or 128.</param>
/// <param name="Threads">Threads of a block.</param>
/// <param name="SharedBytes">Dynamic shared memory of a block.</param>
internal readonly record struct SplitTile(WeightFormat Format, int Rows, int Columns, int Threads, int SharedBytes)
{
    public const int WideColumns = 128, NarrowColumns = 64;

    /// <summary>Whether teams are of two warps.</summary>
    public bool IsNarrow => Columns == NarrowColumns;

    /// <summary>Whether a device has the threads and the shared memory.</summary>
    public bool Fits(in LinearDevice device) => Threads <= device.MaxThreads && SharedBytes <= device.SharedBytes;
}

/// <summary>The one place where run-time choices become type arguments of <see cref="SplitGemm"/>.</summary>
/// <remarks>Of each format and height a wide and a narrow tile have the teams that registers and 227 KB of shared memory allow, and a wide one fits into 99 KB.</remarks>
internal static class SplitKernels
{
    private static readonly Dictionary<SplitTile, KernelDefinition<SplitGemmArgs>> ByTile = Create();
    private static readonly SplitTile[] Ordered = [.. ByTile.Keys.OrderByDescending(t => t.Threads)];

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByTile.Values;

    /// <summary>Whether there are kernels of a format.</summary>
    public static bool Exist(WeightFormat format) => format != WeightFormat.Fp8TwoTerm;

    public static KernelDefinition<SplitGemmArgs> Get(SplitTile tile) => ByTile[tile];

    /// <summary>The tiles of a format, those of most teams first: they hide each other's waits.</summary>
    public static IEnumerable<SplitTile> Tiles(WeightFormat format) => Ordered.Where(t => t.Format == format);

    /// <summary>The tile of so many rows and columns with the most teams that the device has room for, or null.</summary>
    public static SplitTile? Find(WeightFormat format, int rows, int columns, in LinearDevice device)
    {
        foreach (SplitTile tile in Ordered)
            if (tile.Format == format && tile.Rows == rows && tile.Columns == columns && tile.Fits(device))
                return tile;
        return null;
    }

    private static Dictionary<SplitTile, KernelDefinition<SplitGemmArgs>> Create()
    {
        var kernels = new Dictionary<SplitTile, KernelDefinition<SplitGemmArgs>>();
        AddCodes<TiledFp8Extended>(kernels, WeightFormat.Fp8Block);
        AddCodes<TiledNvfp4>(kernels, WeightFormat.Nvfp4);
        AddCodes<TiledInt4>(kernels, WeightFormat.Int4);
        AddCodes<TiledInt4Zero>(kernels, WeightFormat.Int4Zero);
        Add<TiledBf16, Rows32, ThreeStages, ThreeTeams>(kernels, WeightFormat.Bf16);
        Add<TiledBf16, Rows32, FourStages, OneTeam>(kernels, WeightFormat.Bf16);
        Add<TiledBf16, Rows64, ThreeStages, ThreeTeams>(kernels, WeightFormat.Bf16);
        Add<TiledBf16, Rows64, FourStages, OneTeam>(kernels, WeightFormat.Bf16);
        Add<TiledBf16, Rows32, ThreeStages, SixPairs>(kernels, WeightFormat.Bf16);
        Add<TiledBf16, Rows64, ThreeStages, FourPairs>(kernels, WeightFormat.Bf16);
        return kernels;
    }

    private static void AddCodes<TFormat>(Dictionary<SplitTile, KernelDefinition<SplitGemmArgs>> kernels, WeightFormat format)
        where TFormat : struct, ITiledFormat
    {
        Add<TFormat, Rows32, FourStages, FourTeams>(kernels, format);
        Add<TFormat, Rows32, ThreeStages, TwoTeams>(kernels, format);
        Add<TFormat, Rows64, FourStages, ThreeTeams>(kernels, format);
        Add<TFormat, Rows64, ThreeStages, TwoTeams>(kernels, format);
        Add<TFormat, Rows32, ThreeStages, EightPairs>(kernels, format);
        Add<TFormat, Rows64, ThreeStages, SixPairs>(kernels, format);
    }

    private static void Add<TFormat, TWarp, TStages, TTeams>(Dictionary<SplitTile, KernelDefinition<SplitGemmArgs>> kernels, WeightFormat format)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        int threads = SplitSizes<TFormat, TWarp, TStages, TTeams>.Threads;
        var tile = new SplitTile(format, SplitSizes<TFormat, TWarp, TStages, TTeams>.Rows, SplitSizes<TFormat, TWarp, TStages, TTeams>.Columns, threads, SplitSizes<TFormat, TWarp, TStages, TTeams>.SharedBytes);
        kernels.Add(tile, new(SplitGemm.Run<TFormat, TWarp, TStages, TTeams>, new KernelTraits(threads, NeedsWarp32: true, Overlaps: true)));
    }
}
