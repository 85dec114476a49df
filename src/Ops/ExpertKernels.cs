using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The one place where weight formats become type arguments of the kernels of a few tokens' experts.</summary>
internal static class ExpertKernels
{
    private static readonly Dictionary<(WeightFormat Format, bool Norms), KernelDefinition<ExpertArgs>> RoutedGateUpByKey = [];
    private static readonly Dictionary<WeightFormat, KernelDefinition<ExpertArgs>> RoutedDownByFormat = [];
    private static readonly Dictionary<WeightFormat, KernelDefinition<ListedArgs>> GateUpByFormat = [];
    private static readonly Dictionary<WeightFormat, KernelDefinition<ListedArgs>> DownByFormat = [];

    // One token's launches need little shared memory; what the driver leaves to the cache by itself is too little for the loads on their way (docs/kernels/moe.md).
    private const int RoutedSharedPercent = 42;

    private static readonly KernelTraits Traits = new(32 * SkinnyGemm.MostWarps, NeedsWarp32: true, Overlaps: true);
    private static readonly KernelTraits RoutedTraits = Traits with { HopperSharedPercent = RoutedSharedPercent };

    // Eight experts of one token with a chunk each a warp, as the layers have that this is made for.
    private static readonly KernelDefinition<ExpertArgs> RoutedDownEight = new(ExpertDown.Run<StreamedFp8, EightTurns>, RoutedTraits with { MinArch = 90 });

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = Create();

    /// <summary>Gate and up of one token that they route, and if need be norm, themselves.</summary>
    public static KernelDefinition<ExpertArgs> RoutedGateUp(WeightFormat format, bool norms) => RoutedGateUpByKey[(format, norms)];

    /// <summary>Down and the weighted sum of that token.</summary>
    /// <param name="format">Of the weights.</param>
    /// <param name="turns">Experts, where a warp has a chunk of each.</param>
    /// <param name="device">With a copy engine or without.</param>
    public static KernelDefinition<ExpertArgs> RoutedDown(WeightFormat format, int turns, GpuDevice device) =>
        format == WeightFormat.Fp8Block && turns == EightTurns.Count && HasCopyEngine(device) ? RoutedDownEight : RoutedDownByFormat[format];

    /// <summary>Gate and up of a list.</summary>
    public static KernelDefinition<ListedArgs> GateUp(WeightFormat format) => GateUpByFormat[format];

    /// <summary>Down of a list.</summary>
    public static KernelDefinition<ListedArgs> Down(WeightFormat format) => DownByFormat[format];

    // Bulk copies: on cards from compute capability 9.0 on, and in emulation.
    private static bool HasCopyEngine(GpuDevice device) => device.Target is not { } target || target.Number >= 90;

    private static KernelDefinition[] Create()
    {
        Add<StreamedBf16>(WeightFormat.Bf16);
        Add<StreamedFp8>(WeightFormat.Fp8Block);
        Add<StreamedNvfp4>(WeightFormat.Nvfp4);
        Add<StreamedInt4>(WeightFormat.Int4);
        Add<StreamedInt4Zero>(WeightFormat.Int4Zero);
        return [.. RoutedGateUpByKey.Values, .. RoutedDownByFormat.Values, .. GateUpByFormat.Values, .. DownByFormat.Values];
    }

    // The bound of threads is one of registers: of 384 threads they have 168 each, so that three blocks of four warps find room, and nothing is spilt. A chunk of four-bit codes has twice the inputs,
    // and registers are enough only when methods are joined first.
    private static void Add<TFormat>(WeightFormat format)
        where TFormat : struct, IStreamedFormat
    {
        KernelTraits gateUp = RoutedTraits with { MaxThreads = 32 * 12, JoinedFirst = TFormat.CodesPerWordShift > 2 }, listed = Traits with { MaxThreads = 32 * (TFormat.CodesPerWordShift > 2 ? 8 : 12) };
        RoutedGateUpByKey.Add((format, true), new(ExpertGateUp.Run<TFormat, RowNormed>, gateUp));
        RoutedGateUpByKey.Add((format, false), new(ExpertGateUp.Run<TFormat, RowCopied>, gateUp));
        // FP8 has all the registers that one block leaves it, and spills nothing.
        RoutedDownByFormat.Add(format, new(ExpertDown.Run<TFormat, AnyTurns>, RoutedTraits with { BlocksPerMultiprocessor = format == WeightFormat.Fp8Block ? 1 : 0 }));
        GateUpByFormat.Add(format, new(ListedGateUp.Run<TFormat>, listed));
        DownByFormat.Add(format, new(ListedDown.Run<TFormat>, listed));
    }
}
