using CsCheck;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Properties;

/// <summary>Products of any shape, format, block and routing against the float64 oracle, guard bands around everything.</summary>
public sealed class LinearPropertyTests
{
    // Of the sum of magnitudes: what sums of float32 lose by rounding, however much of the sum cancels.
    private const double Tolerance = 1e-5;

    private static readonly Gen<ScaleBlock> Block = Gen.Select(Gen.Int[0, 6], Gen.Int[5, 8], (rows, columns) => new ScaleBlock(1 << rows, 1 << columns));

    [Fact]
    public void AnyShapeIsRightOnTheCpuDevice() =>
        Check(TestDevice.Cpu, 250, Gen.OneOf(LinearPath.Scalar, LinearPath.Gemv), Gen.Int[1, 5], Gen.Int[1, 40], Gen.Int[1, 200]);

    // Every lane of a warp is a thread here. These are the paths that take any shape.
    [Fact]
    public void AnyShapeIsRightWithWholeWarps() =>
        Check(TestDevice.CpuWarp32, 24, Gen.OneOf(LinearPath.Gemv, LinearPath.GemmUnaligned), Gen.Int[1, 70], Gen.Int[1, 70], Gen.Int[1, 100]);

    [Fact]
    public void FiveHundredRoutingsAreRight()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        var routings = Gen.Select(Gen.Enum<WeightFormat>(), Gen.Int[1, 9], Gen.Int[1, 40], Gen.Int[1, 8], Gen.Int[1, 3])
            .SelectMany(shape => Gen.Int[0, shape.Item4 - 1].Array[0, 4 * shape.Item5].Select(experts => (shape, experts[..(experts.Length / shape.Item5 * shape.Item5)])));
        Property.Holds(routings, 500, test =>
        {
            ((WeightFormat format, int n, int k, int experts, int topK), int[] expertOf) = test;
            HostMatrix[] matrices = [.. Enumerable.Range(0, experts).Select(e => Quantizer.Quantize(RandomData.Gaussian(n * k, e), n, k, format))];
            BFloat16[] x = RandomData.GaussianBf16(expertOf.Length / topK * k, 99);
            using var stack = new QuantizedMatrix(device, format, n, k, experts);
            for (int e = 0; e < experts; e++)
                stack.Write(e, 0, matrices[e]);
            using var ids = GuardedBuffer<int>.Input(device, expertOf);
            using var order = GuardedBuffer<int>.Output(device, expertOf.Length);
            using var offsets = GuardedBuffer<int>.Output(device, experts + 1);
            using var input = GuardedBuffer<BFloat16>.Input(device, x);
            using var output = GuardedBuffer<float>.Output(device, expertOf.Length * n);

            ExpertSort.Apply(device.DefaultStream, ids.View, order.View, offsets.View, expertOf.Length, experts);
            GroupedLinear.Multiply(device.DefaultStream, stack, new ExpertRouting(ids.View, order.View, offsets.View), input.View, output.View, new GroupedSize(expertOf.Length, topK));

            float[] y = output.ToArray();
            for (int row = 0; row < expertOf.Length; row++)
                AssertClose(y.AsSpan(row * n, n), x.AsSpan(row / topK * k, k), matrices[expertOf[row]]);
        });
    }

    private static void Check(TestDevice which, int times, Gen<LinearPath> paths, Gen<int> rows, Gen<int> outputs, Gen<int> inputs)
    {
        GpuDevice device = TestDevices.Get(which);
        Property.Holds(Gen.Select(Gen.Enum<WeightFormat>(), Block, paths, rows, outputs, inputs, Gen.Bool), times, test =>
        {
            (WeightFormat format, ScaleBlock block, LinearPath path, int m, int n, int k, bool isUnaligned) = test;
            HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(n * k, n + k), n, k, format, block);
            BFloat16[] x = RandomData.GaussianBf16(m * k, m + k);
            using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
            using var input = GuardedBuffer<BFloat16>.Input(device, x, misalignment: isUnaligned ? 2 : 0);
            using var output = GuardedBuffer<float>.Output(device, m * n);
            Linear.Launch(device.DefaultStream, weights, input.View, output.View.Cast<byte>(), true, (m, 0), path);
            AssertClose(output.ToArray(), x, w);
        });
    }

    private static void AssertClose(ReadOnlySpan<float> y, ReadOnlySpan<BFloat16> x, HostMatrix w)
    {
        double[] weights = MatrixOracle.Values(w);
        for (int i = 0; i < y.Length; i++)
        {
            double sum = 0, magnitudes = 0;
            for (int k = 0; k < w.K; k++)
            {
                double product = (float)x[(i / w.N * w.K) + k] * weights[(i % w.N * w.K) + k];
                sum += product;
                magnitudes += Math.Abs(product);
            }
            Assert.True(Math.Abs(y[i] - sum) <= Tolerance * magnitudes, $"y[{i / w.N}, {i % w.N}] is {y[i]:R}, expected {sum:R}.");
        }
    }
}
