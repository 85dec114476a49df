using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The one place where run-time choices become type arguments of <see cref="HopperSplitGemm"/>.</summary>
internal static class HopperSplitKernels
{
    private static readonly Dictionary<(HopperSplitTile Tile, bool Float32), HopperSplitKernel> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values.Select(k => k.Kernel);

    /// <summary>All tiles, those of the fewest rows first.</summary>
    public static IEnumerable<HopperSplitTile> Tiles { get; } = [.. ByKey.Keys.Select(k => k.Tile).Distinct().OrderBy(t => t.Rows).ThenBy(t => t.Teams)];

    /// <summary>The tile of so many rows of x.</summary>
    public static HopperSplitTile Find(int m) => m <= 32 ? new(32, 3, false, false) : new(64, 2, false, false);

    /// <summary>The kernel of a tile.</summary>
    public static HopperSplitKernel Get(in HopperSplitTile tile, bool float32) => ByKey[(tile, float32)];

    private static Dictionary<(HopperSplitTile Tile, bool Float32), HopperSplitKernel> Create()
    {
        var kernels = new Dictionary<(HopperSplitTile Tile, bool Float32), HopperSplitKernel>();
        AddAll<HopperSplit32>(kernels);
        AddAll<HopperSplit32Pair>(kernels);
        AddAll<HopperSplit64>(kernels);
        return kernels;
    }

    private static void AddAll<TTile>(Dictionary<(HopperSplitTile Tile, bool Float32), HopperSplitKernel> kernels)
        where TTile : struct, IHopperSplitTile
    {
        Add<TTile, ShiftedCodes>(kernels);
        Add<TTile, ShiftedEarlyCodes>(kernels);
        Add<TTile, MultipliedCodes>(kernels);
        Add<TTile, MultipliedEarlyCodes>(kernels);
    }

    private static void Add<TTile, TCodes>(Dictionary<(HopperSplitTile Tile, bool Float32), HopperSplitKernel> kernels)
        where TTile : struct, IHopperSplitTile
        where TCodes : struct, ISplitCodes
    {
        var tile = new HopperSplitTile(TTile.Rows, TTile.Teams, TCodes.LoadsEarly, TCodes.Multiplies);
        kernels.Add((tile, false), Define<MixedBf16Output, TTile, TCodes>());
        kernels.Add((tile, true), Define<MixedFloat32Output, TTile, TCodes>());
    }

    private static HopperSplitKernel Define<TOutput, TTile, TCodes>()
        where TOutput : struct, IMixedOutput
        where TTile : struct, IHopperSplitTile
        where TCodes : struct, ISplitCodes
    {
        var traits = new KernelTraits(HopperSplitGemm.Threads<TTile>(), MinArch: 90, ExactArch: "90a", NeedsWarp32: true, Overlaps: true, BlocksPerMultiprocessor: 1, HasPlainArguments: true);
        return new(new(HopperSplitGemm.Run<TOutput, TTile, TCodes>, traits), HopperSplitGemm.SharedBytes<TTile>());
    }
}

/// <summary>What tells kernels of <see cref="HopperSplitGemm"/> apart.</summary>
/// <param name="Rows">Most rows of x.</param>
/// <param name="Teams">Teams of a block.</param>
/// <param name="LoadsEarly">As <see cref="ISplitCodes.LoadsEarly"/>.</param>
/// <param name="Multiplies">As <see cref="ISplitCodes.Multiplies"/>.</param>
internal readonly record struct HopperSplitTile(int Rows, int Teams, bool LoadsEarly, bool Multiplies);

/// <summary>A kernel of <see cref="HopperSplitGemm"/> and the dynamic shared memory of its blocks.</summary>
internal readonly record struct HopperSplitKernel(KernelDefinition<HopperMixedArgs> Kernel, int SharedBytes);
