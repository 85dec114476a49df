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

    private static KernelDefinition[] Create()
    {
        Add<StreamedBf16>(WeightFormat.Bf16);
        Add<StreamedFp8>(WeightFormat.Fp8Block);
        Add<StreamedNvfp4>(WeightFormat.Nvfp4);
        Add<StreamedInt4>(WeightFormat.Int4);
        Add<StreamedInt4Zero>(WeightFormat.Int4Zero);
        return [.. RoutedGateUpByFormat.Values, .. RoutedDownByFormat.Values, .. GateUpByFormat.Values, .. DownByFormat.Values];
    }

    // The bound of threads is one of registers: of 384 threads they have 168 each, so that three blocks of four warps find room, and nothing is spilt. A chunk of four-bit codes has twice the inputs.
    private static void Add<TFormat>(WeightFormat format)
        where TFormat : struct, IStreamedFormat
    {
        var traits = new KernelTraits(32 * SkinnyGemm.MostWarps, NeedsWarp32: true, Overlaps: true);
        KernelTraits three = traits with { MaxThreads = 32 * 12 }, listed = TFormat.CodesPerWordShift > 2 ? traits with { MaxThreads = 32 * 8 } : three;
        RoutedGateUpByFormat.Add(format, new(ExpertGateUp.Run<TFormat>, three));
        RoutedDownByFormat.Add(format, new(ExpertDown.Run<TFormat>, traits));
        GateUpByFormat.Add(format, new(ListedGateUp.Run<TFormat>, listed));
        DownByFormat.Add(format, new(ListedDown.Run<TFormat>, listed));
    }
}
