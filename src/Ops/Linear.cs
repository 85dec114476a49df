using GpuKit.Ilgpu.Kernels;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>
/// Multiplication by a weight matrix: <c>y[M, N] = x[M, K] · W[N, K]ᵀ</c>, accumulated in float32 unless an <see cref="Accumulator"/> says otherwise.
/// </summary>
/// <remarks>
/// On a card up to 16 rows stream the weights once through tensor cores, more run in tiles of tensor cores (BF16 and FP8 weights on compute
/// capability 9.0: with its own instructions); on the CPU each dot product is one thread's. Bitwise repeatable. Up to 16 rows, among 17 to 32 and among 33 to 64, a row's bits do not depend on M or on the other rows; between the paths
/// bits may differ within the tolerance of docs/numerics.md. Any M, N, K; a zero M does nothing. Views that are not 16-byte
/// aligned, a K that does not fill 16-byte words, narrow scale blocks (FP8: under 64 columns or 32 rows; INT4: under 128 columns) and
/// four-bit rows so long that the multipliers of 32 do not fit into a block's shared memory (docs/kernels/gemv.md) take another path: dot products by warps, tiles from 17 rows, between which bits may differ. In a recorded
/// graph a streamed product requests its first weights while the launch before it ends, if that was one of this kind.
/// </remarks>
public static partial class Linear
{
    /// <summary>Multiplies into BF16.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="weights"><c>W[N, K]</c>; one matrix.</param>
    /// <param name="x"><c>[m, K]</c> BF16.</param>
    /// <param name="y"><c>[m, N]</c> BF16, rounded once.</param>
    /// <param name="m">Rows.</param>
    /// <param name="yStride">Elements between rows of y; N when 0. Lets several products fill one buffer.</param>
    /// <param name="accumulator">How products are added; other than float32 takes dot products by warps for any m.</param>
    /// <exception cref="ArgumentException">A view is too short or on another device, or the matrix is a stack.</exception>
    /// <exception cref="GpuException">
    /// The stream's first product of 4 to 256 rows whose blocks exchange anything found no memory for that (<see cref="AllocationLedger.ScratchBytes"/>): the next tries again. Or a kernel could not be compiled or launched.
    /// </exception>
    public static void Multiply(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<BFloat16> y, int m, int yStride = 0, Accumulator accumulator = Accumulator.Float32)
    {
        RequireOutput(stream, weights, y, m, yStride);
        if (accumulator == Accumulator.Float32)
            Launch(stream, weights, x, y.Cast<byte>(), false, (m, yStride));
        else
            LaunchAccurate(stream, weights, x, y.Cast<byte>(), false, (m, yStride), accumulator);
    }

    /// <summary>Multiplies into float32.</summary>
    /// <inheritdoc cref="Multiply(GpuStream, QuantizedMatrix, ArrayView{BFloat16}, ArrayView{BFloat16}, int, int, Accumulator)"/>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="weights"><c>W[N, K]</c>; one matrix.</param>
    /// <param name="x"><c>[m, K]</c> BF16.</param>
    /// <param name="y"><c>[m, N]</c> float32.</param>
    /// <param name="m">Rows.</param>
    /// <param name="yStride">Elements between rows of y; N when 0.</param>
    /// <param name="accumulator">How products are added; other than float32 takes dot products by warps for any m.</param>
    public static void Multiply(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<float> y, int m, int yStride = 0, Accumulator accumulator = Accumulator.Float32)
    {
        RequireOutput(stream, weights, y, m, yStride);
        if (accumulator == Accumulator.Float32)
            Launch(stream, weights, x, y.Cast<byte>(), true, (m, yStride));
        else
            LaunchAccurate(stream, weights, x, y.Cast<byte>(), true, (m, yStride), accumulator);
    }

    /// <summary>The same with the path and decoder chosen by the caller, for tests and benchmarks.</summary>
    internal static void Launch(GpuStream stream, QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<byte> y, bool float32, (int M, int YStride) size, LinearPath? path = null, Fp8Decoding? decoding = null, GemmTile? tile = null)
    {
        RequireOne(weights);
        Shape.Require(stream, x, size.M, weights.K, nameof(x));
        if (size.M == 0)
            return;
        bool aligned = IsAligned(weights, x);
        var shape = new LinearShape(size.M, weights.N, weights.K, weights.Format, aligned, 0, weights.Block);
        LinearDevice device = LinearDevice.Of(stream.Device);
        if (path is null && !shape.CanStream && HopperPlan.Choose(shape, device) is { } hopper && !SplitPlan.IsFasterThanHoppersTiles(shape, device) && HopperLinear.CanStore(y, weights.N, float32, size.YStride))
        {
            HopperLinear.Launch(stream, weights, x, y, float32, size, hopper);
            return;
        }
        if (path is null && HopperSplitPlan.Exists(shape, device) && HopperLinear.CanStore(y, weights.N, float32, size.YStride))
        {
            HopperSplitLinear.Launch(stream, weights, x, y, float32, size, HopperSplitPlan.Choose(shape, device));
            return;
        }
        if (path is null && !shape.CanStream && !shape.CanSplit && HopperMixedPlan.Exists(shape, device) && HopperLinear.CanStore(y, weights.N, float32, size.YStride))
        {
            HopperMixedLinear.Launch(stream, weights, x, y, float32, size, HopperMixedPlan.Choose(shape, device));
            return;
        }
        if (path is null && HopperSkinnyPlan.IsChosen(shape, device))
        {
            HopperSkinnyLinear.Launch(stream, weights, x, y, float32, size, HopperSkinnyPlan.Blocks(weights.N, device));
            return;
        }
        if (path is null && HopperSweepPlan.IfChosen(shape, device) is { } sweep)
        {
            HopperSweepLinear.Launch(stream, weights, x, y, float32, size, sweep, shape);
            return;
        }
        LinearPlan plan = LinearPlan.Choose(shape, device, path, decoding, tile);
        if (plan.Split is { } split)
        {
            SplitLinear.Launch(stream, weights, x, y, float32, size, split);
            return;
        }
        LinearArgs args = CreateArgs(weights, x, y, size.M, size.YStride, float32);
        if (plan.Path == LinearPath.SkinnyGemm)
        {
            SkinnyLinear.Launch(stream, weights.Format, args, plan);
            return;
        }
        args.WholeTiles = plan.WholeTiles;
        stream.Device.Launch(LinearKernels.Get(plan, weights.Format, size.M, float32, grouped: false), stream, (plan.GridX, plan.GridY, 1), plan.Threads, plan.SharedBytes, args);
    }

    /// <summary>Whether products of up to 16 aligned rows with a matrix stream it on its device: a row then has the same bits whatever their number.</summary>
    internal static bool Streams(QuantizedMatrix weights)
    {
        bool aligned = weights.K % 8 == 0 && Shape.IsVectorAligned(weights.Codes.View, weights.Format.Info().RowBytes(weights.K));
        var shape = new LinearShape(SkinnyGemm.MostInputs, weights.N, weights.K, weights.Format, aligned, 0, weights.Block);
        return LinearPlan.Choose(shape, LinearDevice.Of(weights.Device)).Path == LinearPath.SkinnyGemm;
    }

    internal static bool IsAligned(QuantizedMatrix weights, ArrayView<BFloat16> x) =>
        Shape.IsVectorAligned(x, 2L * weights.K) && Shape.IsVectorAligned(weights.Codes.View, weights.Format.Info().RowBytes(weights.K));

    internal static LinearArgs CreateArgs(QuantizedMatrix weights, ArrayView<BFloat16> x, ArrayView<byte> y, int m, int yStride, bool float32 = false) => new()
    {
        Codes = weights.Codes,
        ScaleTable = weights.ScaleTable,
        X = x.Cast<ushort>(),
        Y = y,
        M = m,
        N = weights.N,
        K = weights.K,
        YStride = yStride == 0 ? weights.N : yStride,
        RowsPerInput = 1,
        IsFloat32 = float32 ? 1 : 0,
        WideStores = Shape.IsVectorAligned(y, 16) && (yStride == 0 ? weights.N : yStride) % 8 == 0 ? 1 : 0,
    };

    internal static void RequireOutput<T>(GpuStream stream, QuantizedMatrix weights, ArrayView<T> y, int m, int yStride, int? columns = null)
        where T : unmanaged
    {
        ArgumentNullException.ThrowIfNull(stream);
        ArgumentNullException.ThrowIfNull(weights);
        stream.Device.RequireSame(weights.Device, nameof(weights));
        Shape.RequireSize(m, nameof(m));
        int width = columns ?? weights.N;
        if (yStride != 0 && yStride < width)
            throw new ArgumentException($"Rows of y are {yStride} elements apart; a row has {width}.", nameof(yStride));
        // The last row need not be followed by the rest of its stride.
        long length = m == 0 ? 0 : ((long)(m - 1) * (yStride == 0 ? width : yStride)) + width;
        Shape.Require(stream, y, 1, length, nameof(y));
    }
}
