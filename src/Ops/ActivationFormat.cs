using GpuKit.Ilgpu.Kernels.Formats;

namespace GpuKit.Ilgpu;

/// <summary>How activations are quantised. Every scale belongs to one row.</summary>
public enum ActivationFormat
{
    /// <summary>E4M3 codes with one float32 multiplier a row and group of 128 columns.</summary>
    Fp8Group128,

    /// <summary>E4M3 codes with one float32 multiplier a row and group of 32 columns.</summary>
    Fp8Group32,

    /// <summary>E2M1 codes, two a byte, with one E4M3 multiplier a row and group of 16 columns and one float32 multiplier a row.</summary>
    Nvfp4,

    /// <summary>Signed codes −8..7, two a byte, symmetric, with one multiplier a row.</summary>
    Int4,
}

/// <summary>The list of formats: what it names is tested and documented.</summary>
internal static class ActivationFormats
{
    /// <summary>Every format.</summary>
    public static readonly IReadOnlyList<ActivationFormat> All = Enum.GetValues<ActivationFormat>();

    /// <summary>Layout, from the format's own struct.</summary>
    public static ActivationFormatInfo Info(this ActivationFormat format) => format switch
    {
        ActivationFormat.Fp8Group128 => Fp8Group128.Info,
        ActivationFormat.Fp8Group32 => Fp8Group32.Info,
        ActivationFormat.Nvfp4 => Nvfp4Rows.Info,
        ActivationFormat.Int4 => Int4Rows.Info,
        _ => throw new ArgumentOutOfRangeException(nameof(format), format, "Not an activation format."),
    };
}
