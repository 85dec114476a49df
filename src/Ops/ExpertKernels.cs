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

    private static readonly Dictionary<(WeightFormat Format, ExpertInputs Inputs), Func<int, int, int>> SharedByKey = [];

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = Create();

    /// <summary>Gate, up and what joins them.</summary>
    public static KernelDefinition<ExpertArgs> GateUp(WeightFormat format, ExpertInputs inputs) => GateUpByKey[(format, inputs)];

    /// <summary>Down and the weighted sum.</summary>
    public static KernelDefinition<ExpertArgs> Down(WeightFormat format, ExpertInputs inputs) => DownByKey[(format, inputs)];

    /// <summary>Dynamic shared memory of a block of gate and up.</summary>
    public static int GateUpShared(WeightFormat format, ExpertInputs inputs, int warps, int k) => SharedByKey[(format, inputs)](warps, k);

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

    private static void Add<TFormat>(WeightFormat format)
        where TFormat : struct, IStreamedFormat
    {
        AddGateUp<TFormat, RowCopied, OneTile>(format, ExpertInputs.One, 5);
        AddGateUp<TFormat, RowNormed, OneTile>(format, ExpertInputs.Normed, 5);
        AddGateUp<TFormat, RowsInDevice, OneTile>(format, ExpertInputs.Eight, 5);
        AddGateUp<TFormat, RowsInDevice, TwoTiles>(format, ExpertInputs.Sixteen, 4);
        var traits = new KernelTraits(32 * SkinnyGemm.MostWarps, NeedsWarp32: true, Overlaps: true);
        DownByKey.Add((format, ExpertInputs.One), new(ExpertDown.Run<TFormat, RowCopied, OneTile>, traits));
        DownByKey.Add((format, ExpertInputs.Normed), new(ExpertDown.Run<TFormat, RowNormed, OneTile>, traits));
        DownByKey.Add((format, ExpertInputs.Eight), new(ExpertDown.Run<TFormat, RowsInDevice, OneTile>, traits));
        DownByKey.Add((format, ExpertInputs.Sixteen), new(ExpertDown.Run<TFormat, RowsInDevice, TwoTiles>, traits));
    }

    // Through the ring few registers are needed, so that beside three blocks a multiprocessor has room for the next launch's. What is in registers
    // needs more: four blocks a multiprocessor.
    private static void AddGateUp<TFormat, TInputs, TTiles>(WeightFormat format, ExpertInputs inputs, int ringBlocks)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles
    {
        var traits = new KernelTraits(32 * ExpertMlp.GateUpWarps, NeedsWarp32: true, Overlaps: true, BlocksPerMultiprocessor: ExpertRing.Suits<TFormat>() ? ringBlocks : 4);
        GateUpByKey.Add((format, inputs), new(ExpertGateUp.Run<TFormat, TInputs, TTiles>, traits));
        SharedByKey.Add((format, inputs), ExpertGateUp.SharedBytes<TFormat, TInputs, TTiles>);
    }
}
