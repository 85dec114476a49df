using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>How the inputs of a few tokens' experts reach the kernels.</summary>
internal enum ExpertInputs
{
    /// <summary>One token's normed state.</summary>
    One,

    /// <summary>One token's residual stream, normed and routed by the kernels.</summary>
    Normed,

    /// <summary>1 to 8 tokens.</summary>
    Eight,

    /// <summary>9 to 16 tokens.</summary>
    Sixteen,
}

/// <summary>The one place where run-time choices become type arguments of <see cref="ExpertGateUp"/> and <see cref="ExpertDown"/>.</summary>
internal static class ExpertKernels
{
    private static readonly Dictionary<(WeightFormat Format, ExpertInputs Inputs), KernelDefinition<ExpertArgs>> GateUpByKey = [];
    private static readonly Dictionary<(WeightFormat Format, ExpertInputs Inputs), KernelDefinition<ExpertArgs>> DownByKey = [];

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = Create();

    /// <summary>Gate, up and what joins them.</summary>
    public static KernelDefinition<ExpertArgs> GateUp(WeightFormat format, ExpertInputs inputs) => GateUpByKey[(format, inputs)];

    /// <summary>Down and the weighted sum.</summary>
    public static KernelDefinition<ExpertArgs> Down(WeightFormat format, ExpertInputs inputs) => DownByKey[(format, inputs)];

    /// <summary>Dynamic shared memory of a block of gate and up.</summary>
    public static int GateUpShared(ExpertInputs inputs, int warps, int k) => inputs switch
    {
        ExpertInputs.One or ExpertInputs.Normed => ExpertGateUp.SharedBytes<RowCopied>(warps, k),
        _ => ExpertGateUp.SharedBytes<RowsInDevice>(warps, k),
    };

    /// <summary>Dynamic shared memory of a block of down.</summary>
    public static int DownShared(ExpertInputs inputs, int warps, (int Pairs, int Tokens) size, int k) => inputs switch
    {
        ExpertInputs.One or ExpertInputs.Normed => ExpertDown.SharedBytes<RowCopied, OneTile>(warps, size.Pairs, size.Tokens, k),
        ExpertInputs.Eight => ExpertDown.SharedBytes<RowsInDevice, OneTile>(warps, size.Pairs, size.Tokens, k),
        _ => ExpertDown.SharedBytes<RowsInDevice, TwoTiles>(warps, size.Pairs, size.Tokens, k),
    };

    private static KernelDefinition[] Create()
    {
        Add<StreamedBf16>(WeightFormat.Bf16);
        Add<StreamedFp8>(WeightFormat.Fp8Block);
        Add<StreamedNvfp4>(WeightFormat.Nvfp4);
        Add<StreamedInt4>(WeightFormat.Int4);
        Add<StreamedInt4Zero>(WeightFormat.Int4Zero);
        return [.. GateUpByKey.Values, .. DownByKey.Values];
    }

    // The bound of threads is one of registers: of 512 threads they have 128 each, so that four blocks of four warps find room; of 384 threads 168. Three blocks then spread evenly over the multiprocessors
    // where four leave some without any, and nothing is spilt.
    private static void Add<TFormat>(WeightFormat format)
        where TFormat : struct, IStreamedFormat
    {
        var traits = new KernelTraits(32 * SkinnyGemm.MostWarps, NeedsWarp32: true, Overlaps: true);
        var three = new KernelTraits(32 * 3 * ExpertMlp.GateUpWarps, NeedsWarp32: true, Overlaps: true);
        GateUpByKey.Add((format, ExpertInputs.One), new(ExpertGateUp.Run<TFormat, RowCopied>, three));
        GateUpByKey.Add((format, ExpertInputs.Normed), new(ExpertGateUp.Run<TFormat, RowNormed>, three));
        GateUpByKey.Add((format, ExpertInputs.Eight), new(ExpertGateUp.Run<TFormat, RowsInDevice>, traits));
        GateUpByKey.Add((format, ExpertInputs.Sixteen), new(ExpertGateUp.Run<TFormat, RowsGathered>, three));
        DownByKey.Add((format, ExpertInputs.One), new(ExpertDown.Run<TFormat, RowCopied, OneTile>, traits));
        DownByKey.Add((format, ExpertInputs.Normed), new(ExpertDown.Run<TFormat, RowNormed, OneTile>, traits));
        DownByKey.Add((format, ExpertInputs.Eight), new(ExpertDown.Run<TFormat, RowsInDevice, OneTile>, traits));
        DownByKey.Add((format, ExpertInputs.Sixteen), new(ExpertDown.Run<TFormat, RowsInDevice, TwoTiles>, traits));
    }
}
