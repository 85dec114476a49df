using GpuKit.Ilgpu.Kernels.Formats;

namespace GpuKit.Ilgpu;

/// <summary>How a weight matrix is stored.</summary>
public enum WeightFormat
{
    /// <summary>16-bit brain floats, two bytes a weight, no scales.</summary>
    Bf16,

    /// <summary>E4M3 codes, one byte a weight, with one float32 multiplier a block (128 × 128 in published checkpoints).</summary>
    Fp8Block,
}

/// <summary>The list of formats: what it names is tested, benchmarked and documented.</summary>
internal static class WeightFormats
{
    /// <summary>Every format.</summary>
    public static readonly IReadOnlyList<WeightFormat> All = Enum.GetValues<WeightFormat>();

    /// <summary>Layout and accuracy, from the format's own struct.</summary>
    public static WeightFormatInfo Info(this WeightFormat format) => format switch
    {
        WeightFormat.Bf16 => Bf16Weights.Info,
        WeightFormat.Fp8Block => Fp8Block<Fp8Table>.Info,
        _ => throw new ArgumentOutOfRangeException(nameof(format), format, "Not a weight format."),
    };
}
