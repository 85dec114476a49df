using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>
/// Quantises rows of BF16 activations, on the device in one launch and on the host; both give the same bits. The arithmetic is that
/// of <see cref="Quantizer"/> with one row in place of a block's rows or the matrix: a row's codes and scales do not depend on
/// other rows. Values beyond the range saturate, a group (INT4: row) without finite non-zero values has scale 1 (an NVFP4 group: 0
/// and zero codes). NaN stays NaN in FP8. NVFP4 and INT4 have none: the host refuses it, the device, which cannot throw, writes code 0.
/// </summary>
public static class ActivationQuantizer
{
    internal static readonly KernelDefinition<QuantizeActivationsArgs> ToFp8Group128 = new(QuantizeActivationGroups.Run<Fp8Group128>, new KernelTraits(QuantizeActivationGroups.Threads));
    internal static readonly KernelDefinition<QuantizeActivationsArgs> ToFp8Group32 = new(QuantizeActivationGroups.Run<Fp8Group32>, new KernelTraits(QuantizeActivationGroups.Threads));
    internal static readonly KernelDefinition<QuantizeActivationsArgs> ToNvfp4 = new(QuantizeActivationRows.Run<Nvfp4Rows>, new KernelTraits(QuantizeActivationRows.Threads));
    internal static readonly KernelDefinition<QuantizeActivationsArgs> ToInt4 = new(QuantizeActivationRows.Run<Int4Rows>, new KernelTraits(QuantizeActivationRows.Threads));

    /// <summary>Quantises on the device. Allocates nothing and does not wait: may be captured into a graph.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="x"><c>[m, K]</c> BF16.</param>
    /// <param name="target">Its format decides; its first m rows are written.</param>
    /// <param name="m">Rows; 0 does nothing.</param>
    /// <exception cref="ArgumentException">The view is too short or on another device, or m is beyond the target's rows.</exception>
    public static void Quantize(GpuStream stream, ArrayView<BFloat16> x, QuantizedActivations target, int m)
    {
        ArgumentNullException.ThrowIfNull(stream);
        ArgumentNullException.ThrowIfNull(target);
        stream.Device.RequireSame(target.Device, nameof(target));
        Shape.RequireRange(m, 0, target.Rows, nameof(m));
        Shape.Require(stream, x, m, target.K, nameof(x));
        if (m == 0)
            return;
        var args = new QuantizeActivationsArgs
        {
            X = x.Cast<byte>(),
            Codes = target.Codes,
            Scales = target.Scales,
            GroupScales = target.GroupScales,
            M = m,
            K = target.K,
            LoadsWords = Shape.IsVectorAligned(x, 2L * target.K) ? 1 : 0,
            StoresWords = target.K % Unit16.Columns == 0 ? 1 : 0,
        };
        switch (target.Format)
        {
            case ActivationFormat.Fp8Group128: LaunchGroups(stream, ToFp8Group128, args); break;
            case ActivationFormat.Fp8Group32: LaunchGroups(stream, ToFp8Group32, args); break;
            case ActivationFormat.Nvfp4: LaunchRows(stream, ToNvfp4, args); break;
            default: LaunchRows(stream, ToInt4, args); break;
        }
    }

    /// <summary>Quantises on the host.</summary>
    /// <param name="x"><c>[m, k]</c> BF16, row-major.</param>
    /// <param name="m">Rows.</param>
    /// <param name="k">Columns, 1 or more.</param>
    /// <param name="format">Target format.</param>
    /// <exception cref="ArgumentException">The number of values is not m·k, or one is NaN and the format has none.</exception>
    public static HostActivations Quantize(ReadOnlySpan<BFloat16> x, int m, int k, ActivationFormat format)
    {
        if (m < 0 || k < 1 || x.Length != (long)m * k)
            throw new ArgumentException($"[{m}, {k}] needs {(long)m * k} values and a column at least; got {x.Length}.", nameof(x));
        return format switch
        {
            ActivationFormat.Fp8Group128 => HostActivationQuantizer.Quantize<Fp8Group128>(x, m, k, format),
            ActivationFormat.Fp8Group32 => HostActivationQuantizer.Quantize<Fp8Group32>(x, m, k, format),
            ActivationFormat.Nvfp4 => HostActivationQuantizer.Quantize<Nvfp4Rows>(x, m, k, format),
            ActivationFormat.Int4 => HostActivationQuantizer.Quantize<Int4Rows>(x, m, k, format),
            _ => throw new ArgumentOutOfRangeException(nameof(format), format, "Not an activation format."),
        };
    }

    private static void LaunchGroups(GpuStream stream, KernelDefinition<QuantizeActivationsArgs> kernel, in QuantizeActivationsArgs args)
    {
        GpuDevice device = stream.Device;
        long stretches = (long)args.M * QuantizeActivationGroups.Stretches(args.K);
        device.Launch(kernel, stream, (LaunchShape.Blocks(device, stretches, 1), 1, 1), LaunchShape.Threads(device, QuantizeActivationGroups.Threads), 0, args);
    }

    private static void LaunchRows(GpuStream stream, KernelDefinition<QuantizeActivationsArgs> kernel, in QuantizeActivationsArgs args)
    {
        GpuDevice device = stream.Device;
        int threads = LaunchShape.WholeWarps(device, (args.K + Unit16.Columns - 1L) / Unit16.Columns, QuantizeActivationRows.Threads);
        device.Launch(kernel, stream, (LaunchShape.Blocks(device, args.M, 1), 1, 1), threads, 0, args);
    }
}
