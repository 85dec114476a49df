using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;
using Rows32 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair2>>;
using Rows64 = GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmTwice<GpuKit.Ilgpu.Kernels.GemmOnce<GpuKit.Ilgpu.Kernels.GemmPair2>>>;

namespace GpuKit.Ilgpu;

/// <summary>A kernel of <see cref="SplitGemm"/>.</summary>
/// <param name="Rows">Rows of x of a tile, 32 or 64.</param>
/// <param name="Teams">Teams of a block.</param>
/// <param name="Stages">Turns of a team that shared memory holds.</param>
/// <param name="Streams">Whether codes go straight to registers.</param>
/// <param name="Overlaps">Whether it overlaps the launch before it in a graph.</param>
internal readonly record struct SplitTile(int Rows, int Teams, int Stages, bool Overlaps = false, bool Streams = false);

/// <summary>The one place where run-time choices become type arguments of <see cref="SplitGemm"/>.</summary>
internal static class SplitKernels
{
    private static readonly Dictionary<(WeightFormat Format, SplitTile Tile), (KernelDefinition<SplitGemmArgs> Kernel, int SharedBytes)> ByTile = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByTile.Values.Select(v => v.Kernel);

    /// <summary>Whether there are kernels of a format.</summary>
    public static bool Exist(WeightFormat format) => format != WeightFormat.Fp8TwoTerm;

    public static KernelDefinition<SplitGemmArgs> Get(WeightFormat format, SplitTile tile) => ByTile[(format, tile)].Kernel;

    public static int SharedBytes(WeightFormat format, SplitTile tile) => ByTile[(format, tile)].SharedBytes;

    public static IEnumerable<SplitTile> Tiles(WeightFormat format) => ByTile.Keys.Where(k => k.Format == format).Select(k => k.Tile);

    private static Dictionary<(WeightFormat Format, SplitTile Tile), (KernelDefinition<SplitGemmArgs> Kernel, int SharedBytes)> Create()
    {
        var kernels = new Dictionary<(WeightFormat Format, SplitTile Tile), (KernelDefinition<SplitGemmArgs> Kernel, int SharedBytes)>();
        AddFormat<TiledFp8>(kernels, WeightFormat.Fp8Block);
        AddFormat<TiledNvfp4>(kernels, WeightFormat.Nvfp4);
        AddFormat<TiledInt4>(kernels, WeightFormat.Int4);
        AddFormat<TiledInt4Zero>(kernels, WeightFormat.Int4Zero);
        Add<TiledBf16, Rows32, ThreeStages, ThreeTeams>(kernels, WeightFormat.Bf16);
        Add<TiledBf16, Rows32, FourStages, OneTeam>(kernels, WeightFormat.Bf16);
        Add<TiledBf16, Rows64, ThreeStages, ThreeTeams>(kernels, WeightFormat.Bf16);
        Add<TiledBf16, Rows64, FourStages, OneTeam>(kernels, WeightFormat.Bf16);
        return kernels;
    }

    private static void AddFormat<TFormat>(Dictionary<(WeightFormat Format, SplitTile Tile), (KernelDefinition<SplitGemmArgs> Kernel, int SharedBytes)> kernels, WeightFormat format)
        where TFormat : struct, ITiledFormat
    {
        Add<TFormat, Rows32, FourStages, FourTeams>(kernels, format);
        Add<TFormat, Rows32, ThreeStages, TwoTeams>(kernels, format);
        Add<TFormat, Rows32, FourStages, ThreeStreams>(kernels, format);
        Add<TFormat, Rows32, FourStages, FourStreams>(kernels, format);
        Add<TFormat, Rows64, FourStages, ThreeTeams>(kernels, format);
        Add<TFormat, Rows64, ThreeStages, TwoTeams>(kernels, format);
        Add<TFormat, Rows64, FourStages, TwoStreams>(kernels, format);
        Add<TFormat, Rows64, FourStages, ThreeStreams>(kernels, format);
    }

    private static void Add<TFormat, TWarp, TStages, TTeams>(Dictionary<(WeightFormat Format, SplitTile Tile), (KernelDefinition<SplitGemmArgs> Kernel, int SharedBytes)> kernels, WeightFormat format)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        foreach (bool overlaps in new[] { true })
        {
            var tile = new SplitTile(SplitSizes<TFormat, TWarp, TStages, TTeams>.Rows, TTeams.Count, TStages.Count, overlaps, TTeams.Streams);
            var traits = new KernelTraits(SplitSizes<TFormat, TWarp, TStages, TTeams>.Threads, NeedsWarp32: true, Overlaps: overlaps);
            kernels.Add((format, tile), (new(SplitGemm.Run<TFormat, TWarp, TStages, TTeams>, traits), SplitSizes<TFormat, TWarp, TStages, TTeams>.SharedBytes));
        }
    }
}
