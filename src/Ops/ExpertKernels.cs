using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The one place where weight formats become type arguments of the kernels of a few tokens' experts.</summary>
internal static class ExpertKernels
{
    private static readonly Dictionary<WeightFormat, KernelDefinition<ExpertArgs>> RoutedGateUpByFormat = [];
    private static readonly Dictionary<WeightFormat, KernelDefinition<ExpertArgs>> RoutedDownByFormat = [];
    private static readonly Dictionary<WeightFormat, KernelDefinition<ListedArgs>> GateUpByFormat = [];
    private static readonly Dictionary<WeightFormat, KernelDefinition<ListedArgs>> DownByFormat = [];

    internal static readonly int GateUpBound = Variant("GATE_BOUND", 384), DownBound = Variant("DOWN_BOUND", 384), DownWarps = Variant("DOWN_WARPS", 2);

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = Create();

    /// <summary>Gate and up of one token that they route themselves.</summary>
    public static KernelDefinition<ExpertArgs> RoutedGateUp(WeightFormat format) => RoutedGateUpByFormat[format];

    /// <summary>Down and the weighted sum of that token.</summary>
    public static KernelDefinition<ExpertArgs> RoutedDown(WeightFormat format) => RoutedDownByFormat[format];

    /// <summary>Gate and up of a list.</summary>
    public static KernelDefinition<ListedArgs> GateUp(WeightFormat format) => GateUpByFormat[format];

    /// <summary>Down of a list.</summary>
    public static KernelDefinition<ListedArgs> Down(WeightFormat format) => DownByFormat[format];

    internal static int Variant(string name, int otherwise) => int.TryParse(Environment.GetEnvironmentVariable("GPUKIT_X_" + name), out int value) ? value : otherwise;

    private static KernelDefinition[] Create()
    {
        Add<StreamedBf16>(WeightFormat.Bf16);
        Add<StreamedFp8>(WeightFormat.Fp8Block);
        Add<StreamedNvfp4>(WeightFormat.Nvfp4);
        Add<StreamedInt4>(WeightFormat.Int4);
        Add<StreamedInt4Zero>(WeightFormat.Int4Zero);
        return [.. RoutedGateUpByFormat.Values, .. RoutedDownByFormat.Values, .. GateUpByFormat.Values, .. DownByFormat.Values];
    }

    private static bool FourBits<TFormat>()
        where TFormat : struct, IStreamedFormat => TFormat.CodesPerWordShift > 2;

    // The bound of threads is one of registers: of 512 threads they have 128 each, so that four blocks of four warps find room; of 384 threads 168. Three blocks then spread evenly over the multiprocessors
    // where four leave some without any, and nothing is spilt.
    private static void Add<TFormat>(WeightFormat format)
        where TFormat : struct, IStreamedFormat
    {
        var traits = new KernelTraits(32 * SkinnyGemm.MostWarps, NeedsWarp32: true, Overlaps: true);
        RoutedGateUpByFormat.Add(format, new(ExpertGateUp.Run<TFormat>, traits with { MaxThreads = 32 * 3 * ExpertMlp.RoutedGateUpWarps }));
        RoutedDownByFormat.Add(format, new(ExpertDown.Run<TFormat>, traits));
        GateUpByFormat.Add(format, new(ListedGateUp.Run<TFormat>, traits with { MaxThreads = FourBits<TFormat>() ? 256 : GateUpBound }));
        DownByFormat.Add(format, new(ListedDown.Run<TFormat>, traits with { MaxThreads = FourBits<TFormat>() ? 256 : DownBound }));
    }
}
