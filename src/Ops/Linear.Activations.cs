using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using ILGPU;

namespace GpuKit.Ilgpu;

public static partial class Linear
{
    /// <summary>Multiplies quantised activations into BF16.</summary>
    /// <remarks>
    /// What goes together: FP8 weights of any block with either FP8 activations, NVFP4 with NVFP4, INT4 weights of one scale a row
    /// (blocks of K columns or more) with INT4, where the sum is an exact integer whatever the accumulator. Any m, N, K. On a card float32 sums of few rows stream and those of many rows of FP8 in
    /// groups of 128, on compute capability 12.0 of NVFP4 too, run in tiles of tensor cores; others are dot products by warps. Bitwise
    /// repeatable; up to 16 rows a row's bits depend neither on m nor on other rows, and beyond 16 neither, though they may be others.
    /// </remarks>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="weights"><c>W[N, K]</c>; one matrix.</param>
    /// <param name="x"><c>[m, K]</c>, quantised before on the same stream or one that this waits for.</param>
    /// <param name="y"><c>[m, N]</c> BF16, rounded once.</param>
    /// <param name="m">Rows, at most those of x.</param>
    /// <param name="yStride">Elements between rows of y; N when 0.</param>
    /// <param name="accumulator">How products are added.</param>
    /// <exception cref="ArgumentException">The formats do not go together, a size does not fit, something is on another device, or the matrix is a stack.</exception>
    public static void Multiply(GpuStream stream, QuantizedMatrix weights, QuantizedActivations x, ArrayView<BFloat16> y, int m, int yStride = 0, Accumulator accumulator = Accumulator.Float32)
    {
        RequireOutput(stream, weights, y, m, yStride);
        Launch(stream, weights, x, y.Cast<byte>(), false, (m, yStride), accumulator);
    }

    /// <summary>Multiplies quantised activations into float32.</summary>
    /// <inheritdoc cref="Multiply(GpuStream, QuantizedMatrix, QuantizedActivations, ArrayView{BFloat16}, int, int, Accumulator)"/>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="weights"><c>W[N, K]</c>; one matrix.</param>
    /// <param name="x"><c>[m, K]</c>, quantised before on the same stream or one that this waits for.</param>
    /// <param name="y"><c>[m, N]</c> float32.</param>
    /// <param name="m">Rows, at most those of x.</param>
    /// <param name="yStride">Elements between rows of y; N when 0.</param>
    /// <param name="accumulator">How products are added.</param>
    public static void Multiply(GpuStream stream, QuantizedMatrix weights, QuantizedActivations x, ArrayView<float> y, int m, int yStride = 0, Accumulator accumulator = Accumulator.Float32)
    {
        RequireOutput(stream, weights, y, m, yStride);
        Launch(stream, weights, x, y.Cast<byte>(), true, (m, yStride), accumulator);
    }

    /// <summary>The same with the path, and of tiles decoder and size, chosen by the caller, for tests and benchmarks.</summary>
    internal static void Launch(GpuStream stream, QuantizedMatrix weights, QuantizedActivations x, ArrayView<byte> y, bool float32, (int M, int YStride) size, Accumulator accumulator, LinearPath? path = null, Fp8Decoding? decoding = null, GemmTile? tile = null)
    {
        ArgumentNullException.ThrowIfNull(x);
        stream.Device.RequireSame(x.Device, nameof(x));
        RequireOne(weights);
        AccurateKernels.Require(weights, x.Format);
        if (x.K != weights.K)
            throw new ArgumentException($"The activations have {x.K} columns, the weights {weights.K}.", nameof(x));
        if (size.M > x.Rows)
            throw new ArgumentException($"{size.M} rows of activations that hold {x.Rows} at most.", nameof(x));
        bool aligned = Shape.IsVectorAligned(x.Codes.View, x.Format.Info().RowBytes(x.K)) && Shape.IsVectorAligned(weights.Codes.View, weights.Format.Info().RowBytes(x.K));
        var shape = new LinearShape(size.M, weights.N, weights.K, weights.Format, aligned && accumulator == Accumulator.Float32, 0, weights.Block, x.Format);
        LinearDevice device = LinearDevice.Of(stream.Device);
        if (path is null && size.M > 0 && !shape.CanStream && HopperPlan.Choose(shape, device) is { } hopper && HopperLinear.CanStore(y, weights.N, float32, size.YStride))
        {
            HopperLinear.Launch(stream, weights, x, y, float32, size, hopper);
            return;
        }
        if (path is null && HopperSkinnyPlan.IsChosen(shape, device))
        {
            HopperSkinnyLinear.Launch(stream, weights, x, y, float32, size, HopperSkinnyPlan.Blocks(weights.N, device));
            return;
        }
        if (path is null && HopperFp8SkinnyPlan.IsChosen(shape, device))
        {
            HopperFp8SkinnyLinear.Launch(stream, weights, x, y, float32, size, HopperFp8SkinnyPlan.Warps(shape, device), HopperFp8SkinnyPlan.EarlyChunks(shape, device));
            return;
        }
        if (path is null && HopperSweepPlan.IfChosen(shape, device) is { } sweep)
        {
            HopperSweepLinear.Launch(stream, weights, x, y, float32, size, sweep, shape);
            return;
        }
        LinearPlan plan = LinearPlan.ChooseAccurate(shape, device, path, decoding, tile);
        if (plan.Path is LinearPath.SkinnyGemm or LinearPath.Gemm)
        {
            LaunchOnTensorCores(stream, weights, x, y, float32, size, plan);
            return;
        }
        var inputs = new AccurateInputs(x.Codes, x.ScaleTable, x.Format, Shape.IsVectorAligned(x.Codes.View, x.Format.Info().RowBytes(x.K) * UnitGranularity(x.Format.Info().BitsPerCode)));
        LaunchAccurate(stream, weights, inputs, y, float32, size, accumulator, path);
    }

    /// <summary>BF16 activations with another accumulator than float32; the path chosen by the caller, for tests and benchmarks.</summary>
    internal static void LaunchAccurate(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<byte> y, bool float32, (int M, int YStride) size, Accumulator accumulator, LinearPath? path = null)
    {
        RequireOne(weights);
        Shape.Require(stream, x, size.M, weights.K, nameof(x));
        LaunchAccurate(stream, weights, new AccurateInputs(x.Cast<byte>(), default, null, Shape.IsVectorAligned(x, 2L * weights.K)), y, float32, size, accumulator, path);
    }

    private static void LaunchOnTensorCores(GpuStream stream, QuantizedMatrix weights, QuantizedActivations x, ArrayView<byte> y, bool float32, (int M, int YStride) size, in LinearPlan plan)
    {
        if (size.M == 0)
            return;
        LinearArgs args = CreateArgs(weights, default, y, size.M, size.YStride, float32) with { X = x.Codes.View.Cast<ushort>(), InputScales = x.ScaleTable };
        if (plan.Tile is { } tile)
        {
            stream.Device.Launch(CodeKernels.Get(plan.Decoding, tile), stream, (plan.GridX, plan.GridY, 1), plan.Threads, plan.SharedBytes, args with { K = weights.K / CodeKernels.CodesInColumn(weights.Format) });
            return;
        }
        SkinnyLinear.Launch(stream, weights.Format, args, plan, x.Format);
    }

    private static void LaunchAccurate(GpuStream stream, QuantizedMatrix weights, in AccurateInputs x, ArrayView<byte> y, bool float32, (int M, int YStride) size, Accumulator accumulator, LinearPath? path)
    {
        if (!Enum.IsDefined(accumulator))
            throw new ArgumentOutOfRangeException(nameof(accumulator), accumulator, "Not an accumulator.");
        if (size.M == 0)
            return;
        WeightFormatInfo info = weights.Format.Info();
        bool aligned = x.IsAligned && Shape.IsVectorAligned(weights.Codes.View, info.RowBytes(weights.K) * UnitGranularity(info.BitsPerCode));
        var shape = new LinearShape(size.M, weights.N, weights.K, weights.Format, aligned, 0, weights.Block);
        LinearPlan plan = LinearPlan.ChooseAccurate(shape, LinearDevice.Of(stream.Device), path);
        var args = new AccurateArgs
        {
            Codes = weights.Codes,
            Scales = weights.ScaleTable,
            Inputs = x.Codes,
            InputScales = x.Scales,
            Y = y,
            M = size.M,
            N = weights.N,
            K = weights.K,
            YStride = size.YStride == 0 ? weights.N : size.YStride,
            IsAligned = aligned ? 1 : 0,
        };
        stream.Device.Launch(AccurateKernels.Get(plan, weights.Format, x.Format, accumulator, float32), stream, (plan.GridX, plan.GridY, 1), plan.Threads, 0, args);
    }

    private static void RequireOne(QuantizedMatrix weights)
    {
        if (weights.Count != 1)
            throw new ArgumentException($"The weights are a stack of {weights.Count} matrices; use GroupedLinear.", nameof(weights));
    }

    // Sixteen four-bit codes are loaded as 8 bytes: half the granularity of the others.
    private static long UnitGranularity(int bitsPerCode) => bitsPerCode == 4 ? 2 : 1;

    private readonly record struct AccurateInputs(ArrayView<byte> Codes, ScaleTable Scales, ActivationFormat? Format, bool IsAligned);
}
