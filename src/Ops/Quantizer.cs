using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>
/// Turns float weights into a storage format and back, on the host and on the device; both give the same bits. Rounding is
/// to nearest even, values beyond the range saturate, NaN stays NaN, a zero block has scale 1 and zero codes.
/// </summary>
public static class Quantizer
{
    private const int Threads = 256;

    internal static readonly KernelDefinition<QuantizeArgs> Fp8FromFloat32 = new(QuantizeFp8.Run<Float32Source>, new KernelTraits(QuantizeFp8.Threads));
    internal static readonly KernelDefinition<QuantizeArgs> Fp8FromBf16 = new(QuantizeFp8.Run<Bf16Source>, new KernelTraits(QuantizeFp8.Threads));
    internal static readonly KernelDefinition<QuantizeArgs> Bf16FromFloat32 = new(QuantizeBf16.Run<Float32Source>, new KernelTraits(Threads));
    internal static readonly KernelDefinition<QuantizeArgs> Bf16FromBf16 = new(QuantizeBf16.Run<Bf16Source>, new KernelTraits(Threads));
    internal static readonly KernelDefinition<QuantizeArgs> Fp8ToFloat32 = new(Kernels.Dequantize.Run<Fp8Block<Fp8Table>, Float32Output>, new KernelTraits(Threads));
    internal static readonly KernelDefinition<QuantizeArgs> Fp8ToBf16 = new(Kernels.Dequantize.Run<Fp8Block<Fp8Table>, Bf16Output>, new KernelTraits(Threads));
    internal static readonly KernelDefinition<QuantizeArgs> Bf16ToFloat32 = new(Kernels.Dequantize.Run<Bf16Weights, Float32Output>, new KernelTraits(Threads));
    internal static readonly KernelDefinition<QuantizeArgs> Bf16ToBf16 = new(Kernels.Dequantize.Run<Bf16Weights, Bf16Output>, new KernelTraits(Threads));

    /// <summary>Quantises on the host.</summary>
    /// <param name="values"><c>[n, k]</c> float32, row-major.</param>
    /// <param name="n">Output features (rows).</param>
    /// <param name="k">Input features (columns).</param>
    /// <param name="format">Target format.</param>
    /// <param name="block">Scale block of a scaled format; 128 × 128 when omitted.</param>
    /// <exception cref="ArgumentException">The number of values is not n·k.</exception>
    public static HostMatrix Quantize(ReadOnlySpan<float> values, int n, int k, WeightFormat format, ScaleBlock? block = null)
    {
        if (n < 0 || k < 0 || values.Length != (long)n * k)
            throw new ArgumentException($"[{n}, {k}] needs {(long)n * k} values, got {values.Length}.", nameof(values));
        ScaleBlock shape = block ?? ScaleBlock.Square128;
        return format == WeightFormat.Bf16 ? ToBf16(values, n, k, shape) : ToFp8(values, n, k, shape);
    }

    /// <summary>Quantises on the device into an allocated matrix.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="values"><c>[N, K]</c> float32.</param>
    /// <param name="target">One matrix; its format and block decide.</param>
    /// <exception cref="ArgumentException">The view is too short or on another device, or the target is a stack.</exception>
    public static void Quantize(GpuStream stream, ArrayView<float> values, QuantizedMatrix target)
    {
        RequireOne(stream, target);
        Shape.Require(stream, values, target.N, target.K, nameof(values));
        Launch(stream, target.Format == WeightFormat.Bf16 ? Bf16FromFloat32 : Fp8FromFloat32, values.Cast<byte>(), target, blockwise: target.Format != WeightFormat.Bf16);
    }

    /// <summary>Quantises BF16 values on the device into an allocated matrix.</summary>
    /// <inheritdoc cref="Quantize(GpuStream, ArrayView{float}, QuantizedMatrix)"/>
    public static void Quantize(GpuStream stream, ArrayView<BFloat16> values, QuantizedMatrix target)
    {
        RequireOne(stream, target);
        Shape.Require(stream, values, target.N, target.K, nameof(values));
        Launch(stream, target.Format == WeightFormat.Bf16 ? Bf16FromBf16 : Fp8FromBf16, values.Cast<byte>(), target, blockwise: target.Format != WeightFormat.Bf16);
    }

    /// <summary>The values that a quantised matrix stands for, in float32: code · scale, rounded once.</summary>
    /// <exception cref="ArgumentException">Codes or scales do not fit the shape.</exception>
    public static float[] Dequantize(HostMatrix matrix)
    {
        ArgumentNullException.ThrowIfNull(matrix);
        var values = new float[checked(matrix.N * matrix.K)];
        if (matrix.Codes.Length != (long)values.Length * matrix.Format.Info().BitsPerCode / 8)
            throw new ArgumentException($"{matrix.Codes.Length} bytes of codes do not fit [{matrix.N}, {matrix.K}] in {matrix.Format.Info().Name}.", nameof(matrix));
        int scales = matrix.Format.Info().IsScaled ? matrix.Block.RowBlocks(matrix.N) * matrix.Block.ColumnBlocks(matrix.K) : 0;
        if (matrix.Scales.Length != scales)
            throw new ArgumentException($"{matrix.Scales.Length} scales do not fit [{matrix.N}, {matrix.K}] in {matrix.Format.Info().Name}, which needs {scales}.", nameof(matrix));
        ReadOnlySpan<ushort> halves = MemoryMarshal.Cast<byte, ushort>(matrix.Codes);
        for (int n = 0, i = 0; n < matrix.N; n++)
        {
            for (int k = 0; k < matrix.K; k++, i++)
            {
                values[i] = matrix.Format == WeightFormat.Bf16
                    ? Bf16.ToFloat(halves[i])
                    : Bf16.ToFloat((ushort)Fp8Hardware.ToBf16Pair(Kernels.Isa.Cvt.E4M3x2LowToF16x2Software(matrix.Codes[i])))
                        * matrix.Scales[(n / matrix.Block.Rows * matrix.Block.ColumnBlocks(matrix.K)) + (k / matrix.Block.Columns)];
            }
        }
        return values;
    }

    /// <summary>Writes the values of a matrix as float32, on the device.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="source">One matrix.</param>
    /// <param name="values"><c>[N, K]</c> float32.</param>
    /// <exception cref="ArgumentException">The view is too short or on another device, or the source is a stack.</exception>
    public static void Dequantize(GpuStream stream, QuantizedMatrix source, ArrayView<float> values)
    {
        RequireOne(stream, source);
        Shape.Require(stream, values, source.N, source.K, nameof(values));
        Launch(stream, source.Format == WeightFormat.Bf16 ? Bf16ToFloat32 : Fp8ToFloat32, values.Cast<byte>(), source, blockwise: false);
    }

    /// <summary>Writes the values of a matrix rounded to BF16, on the device.</summary>
    /// <inheritdoc cref="Dequantize(GpuStream, QuantizedMatrix, ArrayView{float})"/>
    public static void Dequantize(GpuStream stream, QuantizedMatrix source, ArrayView<BFloat16> values)
    {
        RequireOne(stream, source);
        Shape.Require(stream, values, source.N, source.K, nameof(values));
        Launch(stream, source.Format == WeightFormat.Bf16 ? Bf16ToBf16 : Fp8ToBf16, values.Cast<byte>(), source, blockwise: false);
    }

    private static HostMatrix ToBf16(ReadOnlySpan<float> values, int n, int k, ScaleBlock block)
    {
        var codes = new byte[2 * values.Length];
        Span<ushort> halves = MemoryMarshal.Cast<byte, ushort>(codes.AsSpan());
        for (int i = 0; i < values.Length; i++)
            halves[i] = Bf16.FromFloat(values[i]);
        return new HostMatrix(WeightFormat.Bf16, n, k, codes, [], block);
    }

    private static HostMatrix ToFp8(ReadOnlySpan<float> values, int n, int k, ScaleBlock block)
    {
        var codes = new byte[values.Length];
        int columnBlocks = block.ColumnBlocks(k);
        var scales = new float[block.RowBlocks(n) * columnBlocks];
        for (int row = 0; row < n; row++)
        {
            for (int column = 0; column < k; column++)
            {
                ref float largest = ref scales[(row / block.Rows * columnBlocks) + (column / block.Columns)];
                largest = MathF.Max(largest, Fp8Arithmetic.Magnitude(values[(row * k) + column]));
            }
        }
        for (int i = 0; i < scales.Length; i++)
            scales[i] = Fp8Arithmetic.Scale(scales[i]);
        for (int row = 0; row < n; row++)
            for (int column = 0; column < k; column++)
                codes[(row * k) + column] = Fp8Arithmetic.Encode(values[(row * k) + column], scales[(row / block.Rows * columnBlocks) + (column / block.Columns)]);
        return new HostMatrix(WeightFormat.Fp8Block, n, k, codes, scales, block);
    }

    private static void RequireOne(GpuStream stream, QuantizedMatrix matrix)
    {
        ArgumentNullException.ThrowIfNull(stream);
        ArgumentNullException.ThrowIfNull(matrix);
        stream.Device.RequireSame(matrix.Device, nameof(matrix));
        if (matrix.Count != 1)
            throw new ArgumentException($"The matrix is a stack of {matrix.Count}; only single matrices are quantised.", nameof(matrix));
    }

    private static void Launch(GpuStream stream, KernelDefinition<QuantizeArgs> kernel, ArrayView<byte> values, QuantizedMatrix matrix, bool blockwise)
    {
        GpuDevice device = stream.Device;
        int threads = LaunchShape.Threads(device, Threads);
        var args = new QuantizeArgs
        {
            Values = values,
            Codes = matrix.Codes,
            Scales = matrix.Scales,
            N = matrix.N,
            K = matrix.K,
            RowShift = matrix.Block.RowShift,
            ColumnShift = matrix.Block.ColumnShift,
            ColumnBlocks = matrix.Block.ColumnBlocks(matrix.K),
            RowBlocks = matrix.Block.RowBlocks(matrix.N),
        };
        int blocks = blockwise
            ? LaunchShape.Blocks(device, (long)args.RowBlocks * args.ColumnBlocks, 1)
            : LaunchShape.Blocks(device, (long)matrix.N * matrix.K, threads);
        device.Launch(kernel, stream, (blocks, 1, 1), threads, 0, args);
    }
}
