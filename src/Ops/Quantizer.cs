using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>
/// Turns float weights into a storage format and back, on the host and on the device; both give the same bits. Rounding is
/// to nearest even, values beyond the range saturate, a block without finite non-zero values has scale 1 (an NVFP4 group: 0
/// and zero codes, which makes its infinities 0 too). NaN stays NaN in BF16 and FP8. NVFP4 and INT4 have none: the host
/// refuses it, the device, which cannot throw, writes the code of 0.
/// </summary>
public static class Quantizer
{
    private const int Threads = 256;

    internal static readonly KernelDefinition<QuantizeArgs> Fp8FromFloat32 = Blocks<Fp8Code, Float32Source>();
    internal static readonly KernelDefinition<QuantizeArgs> Fp8FromBf16 = Blocks<Fp8Code, Bf16Source>();
    internal static readonly KernelDefinition<QuantizeArgs> Int4FromFloat32 = Blocks<Int4Code, Float32Source>();
    internal static readonly KernelDefinition<QuantizeArgs> Int4FromBf16 = Blocks<Int4Code, Bf16Source>();
    internal static readonly KernelDefinition<QuantizeArgs> Int4ZeroFromFloat32 = new(QuantizeInt4Zero.Run<Float32Source>, new KernelTraits(QuantizeBlocks.Threads));
    internal static readonly KernelDefinition<QuantizeArgs> Int4ZeroFromBf16 = new(QuantizeInt4Zero.Run<Bf16Source>, new KernelTraits(QuantizeBlocks.Threads));
    internal static readonly KernelDefinition<QuantizeArgs> TwoTermFromFloat32 = new(QuantizeFp8TwoTerm.Run<Float32Source>, new KernelTraits(QuantizeBlocks.Threads));
    internal static readonly KernelDefinition<QuantizeArgs> TwoTermFromBf16 = new(QuantizeFp8TwoTerm.Run<Bf16Source>, new KernelTraits(QuantizeBlocks.Threads));
    internal static readonly KernelDefinition<QuantizeArgs> Bf16FromFloat32 = new(QuantizeBf16.Run<Float32Source>, new KernelTraits(Threads));
    internal static readonly KernelDefinition<QuantizeArgs> Bf16FromBf16 = new(QuantizeBf16.Run<Bf16Source>, new KernelTraits(Threads));
    internal static readonly KernelDefinition<QuantizeArgs> LargestOfFloat32 = new(QuantizeNvfp4.FindLargest<Float32Source>, new KernelTraits(QuantizeNvfp4.Threads));
    internal static readonly KernelDefinition<QuantizeArgs> LargestOfBf16 = new(QuantizeNvfp4.FindLargest<Bf16Source>, new KernelTraits(QuantizeNvfp4.Threads));
    internal static readonly KernelDefinition<QuantizeArgs> Nvfp4Scale = new(QuantizeNvfp4.SetScale, new KernelTraits(Threads));
    internal static readonly KernelDefinition<QuantizeArgs> Nvfp4FromFloat32 = new(QuantizeNvfp4.Encode<Float32Source>, new KernelTraits(Threads));
    internal static readonly KernelDefinition<QuantizeArgs> Nvfp4FromBf16 = new(QuantizeNvfp4.Encode<Bf16Source>, new KernelTraits(Threads));
    internal static readonly IReadOnlyDictionary<WeightFormat, KernelDefinition<QuantizeArgs>> ToFloat32 = Dequantizers<Float32Output>();
    internal static readonly IReadOnlyDictionary<WeightFormat, KernelDefinition<QuantizeArgs>> ToBf16 = Dequantizers<Bf16Output>();
    internal static readonly IEnumerable<KernelDefinition> AllDequantizers = [.. ToFloat32.Values, .. ToBf16.Values];

    /// <summary>Quantises on the host.</summary>
    /// <param name="values"><c>[n, k]</c> float32, row-major.</param>
    /// <param name="n">Output features (rows).</param>
    /// <param name="k">Input features (columns).</param>
    /// <param name="format">Target format.</param>
    /// <param name="block">Scale block; when omitted 128 × 128 in FP8, 1 × 128 in INT4 (both). NVFP4 has its own.</param>
    /// <exception cref="ArgumentException">The number of values is not n·k, or one is NaN and the format has none.</exception>
    public static HostMatrix Quantize(ReadOnlySpan<float> values, int n, int k, WeightFormat format, ScaleBlock? block = null)
    {
        if (n < 0 || k < 0 || values.Length != (long)n * k)
            throw new ArgumentException($"[{n}, {k}] needs {(long)n * k} values, got {values.Length}.", nameof(values));
        return HostQuantizer.Quantize(values, n, k, format, format.BlockOr(block));
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
        switch (target.Format)
        {
            case WeightFormat.Bf16: LaunchElements(stream, Bf16FromFloat32, values.Cast<byte>(), target); break;
            case WeightFormat.Nvfp4: LaunchNvfp4(stream, LargestOfFloat32, Nvfp4FromFloat32, values.Cast<byte>(), target); break;
            case WeightFormat.Int4: LaunchBlocks(stream, Int4FromFloat32, values.Cast<byte>(), target); break;
            case WeightFormat.Int4Zero: LaunchBlocks(stream, Int4ZeroFromFloat32, values.Cast<byte>(), target); break;
            case WeightFormat.Fp8TwoTerm: LaunchBlocks(stream, TwoTermFromFloat32, values.Cast<byte>(), target); break;
            default: LaunchBlocks(stream, Fp8FromFloat32, values.Cast<byte>(), target); break;
        }
    }

    /// <summary>Quantises BF16 values on the device into an allocated matrix.</summary>
    /// <inheritdoc cref="Quantize(GpuStream, ArrayView{float}, QuantizedMatrix)"/>
    public static void Quantize(GpuStream stream, ArrayView<BFloat16> values, QuantizedMatrix target)
    {
        RequireOne(stream, target);
        Shape.Require(stream, values, target.N, target.K, nameof(values));
        switch (target.Format)
        {
            case WeightFormat.Bf16: LaunchElements(stream, Bf16FromBf16, values.Cast<byte>(), target); break;
            case WeightFormat.Nvfp4: LaunchNvfp4(stream, LargestOfBf16, Nvfp4FromBf16, values.Cast<byte>(), target); break;
            case WeightFormat.Int4: LaunchBlocks(stream, Int4FromBf16, values.Cast<byte>(), target); break;
            case WeightFormat.Int4Zero: LaunchBlocks(stream, Int4ZeroFromBf16, values.Cast<byte>(), target); break;
            case WeightFormat.Fp8TwoTerm: LaunchBlocks(stream, TwoTermFromBf16, values.Cast<byte>(), target); break;
            default: LaunchBlocks(stream, Fp8FromBf16, values.Cast<byte>(), target); break;
        }
    }

    /// <summary>The values that a quantised matrix stands for, in float32: code · scale, rounded once; in two-term FP8 that and the second product, added with one more rounding.</summary>
    /// <exception cref="ArgumentException">Codes or scales do not fit the shape.</exception>
    public static float[] Dequantize(HostMatrix matrix)
    {
        ArgumentNullException.ThrowIfNull(matrix);
        return HostQuantizer.Dequantize(matrix);
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
        LaunchElements(stream, ToFloat32[source.Format], values.Cast<byte>(), source);
    }

    /// <summary>Writes the values of a matrix rounded to BF16, on the device.</summary>
    /// <inheritdoc cref="Dequantize(GpuStream, QuantizedMatrix, ArrayView{float})"/>
    public static void Dequantize(GpuStream stream, QuantizedMatrix source, ArrayView<BFloat16> values)
    {
        RequireOne(stream, source);
        Shape.Require(stream, values, source.N, source.K, nameof(values));
        LaunchElements(stream, ToBf16[source.Format], values.Cast<byte>(), source);
    }

    private static KernelDefinition<QuantizeArgs> Blocks<TCode, TSource>()
        where TCode : struct, IBlockCode
        where TSource : struct, ISource => new(QuantizeBlocks.Run<TCode, TSource>, new KernelTraits(QuantizeBlocks.Threads));

    private static Dictionary<WeightFormat, KernelDefinition<QuantizeArgs>> Dequantizers<TOutput>()
        where TOutput : struct, IOutput => new()
        {
            [WeightFormat.Bf16] = new(Kernels.Dequantize.Run<Bf16Weights, TOutput>, new KernelTraits(Threads)),
            [WeightFormat.Fp8Block] = new(Kernels.Dequantize.Run<Fp8Block<Fp8Table>, TOutput>, new KernelTraits(Threads)),
            [WeightFormat.Nvfp4] = new(Kernels.Dequantize.Run<Nvfp4, TOutput>, new KernelTraits(Threads)),
            [WeightFormat.Int4] = new(Kernels.Dequantize.Run<Int4, TOutput>, new KernelTraits(Threads)),
            [WeightFormat.Int4Zero] = new(Kernels.Dequantize.Run<Int4Zero, TOutput>, new KernelTraits(Threads)),
            [WeightFormat.Fp8TwoTerm] = new(Kernels.Dequantize.Run<Fp8TwoTerm<Fp8Table>, TOutput>, new KernelTraits(Threads)),
        };

    private static void RequireOne(GpuStream stream, QuantizedMatrix matrix)
    {
        ArgumentNullException.ThrowIfNull(stream);
        ArgumentNullException.ThrowIfNull(matrix);
        stream.Device.RequireSame(matrix.Device, nameof(matrix));
        if (matrix.Count != 1)
            throw new ArgumentException($"The matrix is a stack of {matrix.Count}; only single matrices are quantised.", nameof(matrix));
    }

    private static void LaunchElements(GpuStream stream, KernelDefinition<QuantizeArgs> kernel, ArrayView<byte> values, QuantizedMatrix matrix) =>
        Launch(stream, kernel, values, matrix, (long)matrix.N * matrix.K, LaunchShape.Threads(stream.Device, Threads));

    private static void LaunchBlocks(GpuStream stream, KernelDefinition<QuantizeArgs> kernel, ArrayView<byte> values, QuantizedMatrix matrix) =>
        Launch(stream, kernel, values, matrix, (long)matrix.Block.RowBlocks(matrix.N) * matrix.Block.ColumnBlocks(matrix.K), 1);

    private static void LaunchNvfp4(GpuStream stream, KernelDefinition<QuantizeArgs> largest, KernelDefinition<QuantizeArgs> encode, ArrayView<byte> values, QuantizedMatrix matrix)
    {
        matrix.Scales.Fill(stream, 0);
        LaunchElements(stream, largest, values, matrix);
        Launch(stream, Nvfp4Scale, values, matrix, 1, 1);
        Launch(stream, encode, values, matrix, matrix.GroupScalesPerMatrix, LaunchShape.Threads(stream.Device, Threads));
    }

    private static void Launch(GpuStream stream, KernelDefinition<QuantizeArgs> kernel, ArrayView<byte> values, QuantizedMatrix matrix, long items, int perBlock)
    {
        GpuDevice device = stream.Device;
        var args = new QuantizeArgs
        {
            Values = values,
            Codes = matrix.Codes,
            Scales = matrix.ScaleTable,
            N = matrix.N,
            K = matrix.K,
            RowBlocks = matrix.Block.RowBlocks(matrix.N),
        };
        device.Launch(kernel, stream, (LaunchShape.Blocks(device, items, perBlock), 1, 1), LaunchShape.Threads(device, Threads), 0, args);
    }
}
