using GpuKit.Ilgpu.Kernels;

namespace GpuKit.Ilgpu;

/// <summary>What the plan must know of a multiplication.</summary>
/// <param name="M">Rows of the output.</param>
/// <param name="N">Output features.</param>
/// <param name="K">Input features.</param>
/// <param name="Format">Weight format.</param>
/// <param name="Aligned">Whether every row of x and W starts on a 16-byte boundary and is whole 16-byte words long.</param>
/// <param name="Experts">Matrices to choose from, or 0 when there is no choice.</param>
/// <param name="Block">What shares a scale.</param>
/// <param name="Activations">Format of x, or null for BF16.</param>
internal readonly record struct LinearShape(int M, int N, int K, WeightFormat Format, bool Aligned, int Experts, ScaleBlock Block = default, ActivationFormat? Activations = null)
{
    /// <summary>Whether the skinny kernel can run it where <see cref="SkinnyLinear.Fits"/>: whole 16-byte words, wide enough scale blocks, at most 16 rows, no experts.</summary>
    public bool CanStream => Aligned && Experts == 0 && M <= SkinnyGemm.MostInputs && SkinnyKernels.Exist(Format, Activations, Block);

    /// <summary>
    /// Whether the pipelined kernel can run it with codes on both sides: whole 16-byte words, one matrix; FP8 with a scale on each side for a turn and a warp,
    /// NVFP4 on the one architecture that multiplies it, with whole words of group scales.
    /// </summary>
    public bool CanPipelineCodes(in LinearDevice device) => HasTilesOfCodes && (Format != WeightFormat.Nvfp4 || device.Arch == CodeKernels.ScaledArch);

    /// <summary>The same whatever the device.</summary>
    public bool HasTilesOfCodes => Aligned && Experts == 0 && HasPlaces && (Format, Activations) switch
    {
        (WeightFormat.Fp8Block, ActivationFormat.Fp8Group128) => Block is { Rows: >= Fp8Products.WeightRows, Columns: >= Fp8Products.Columns },
        (WeightFormat.Nvfp4, ActivationFormat.Nvfp4) => K % Nvfp4Products.Columns == 0,
        _ => false,
    };

    /// <summary>Whether the kernels that split K can run it in one tile of rows: 17 to 64 rows of BF16 and one matrix, whole 16-byte words, wide enough scale blocks, of FP8 with 32 rows or more.</summary>
    public bool CanSplit => M is >= LinearPlan.GemmFromRows and <= SplitPlan.MostRows && Experts == 0 && Activations is null && N is > 0 and <= SplitPlan.MostOutputs && K is > 0 and <= SplitPlan.MostColumns && CanPipeline && SplitKernels.Exist(Format)
        && (Format != WeightFormat.Fp8Block || Block.Rows >= SplitGemm.WarpColumns);

    /// <summary>Whether the pipelined kernel can run it: whole 16-byte words, as many as it counts, wide enough scale blocks.</summary>
    public bool CanPipeline => Aligned && HasPlaces && (Format is WeightFormat.Bf16 or WeightFormat.Nvfp4 || Block.Columns >= Gemm.FoldColumns);

    // As many 16-byte words as the pipelined kernels count.
    private bool HasPlaces => (long)Math.Max(M, N) * K <= Gemm.MostElements;
}

/// <summary>What the plan must know of a device.</summary>
/// <param name="IsCuda">A card, not the CPU.</param>
/// <param name="Arch">Compute capability as major·10 + minor; 0 on the CPU.</param>
/// <param name="WarpSize">Lanes a warp.</param>
/// <param name="MaxThreads">Threads a block can have.</param>
/// <param name="Multiprocessors">Blocks that run at once.</param>
/// <param name="SharedBytes">Shared memory a block can have.</param>
/// <param name="CudaVersion">What the driver supports, as major·10 + minor: an older one refuses the text of newer instructions.</param>
internal readonly record struct LinearDevice(bool IsCuda, int Arch, int WarpSize, int MaxThreads, int Multiprocessors, int SharedBytes, int CudaVersion = int.MaxValue)
{
    public static LinearDevice Of(GpuDevice device) => new(
        device.IsCuda, device.Target?.Number ?? 0, device.WarpSize, device.MaxThreadsPerBlock, device.MultiprocessorCount, device.MaxSharedBytesPerBlock, device.CudaVersion);
}
