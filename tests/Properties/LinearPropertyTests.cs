using CsCheck;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Properties;

/// <summary>Products of any shape, format, block and routing against the float64 oracle, guard bands around everything.</summary>
public sealed class LinearPropertyTests
{
    private const double Tolerance = 1e-5;

    private static readonly Gen<ScaleBlock> Block = Gen.Select(Gen.Int[0, 6], Gen.Int[5, 8], (rows, columns) => new ScaleBlock(1 << rows, 1 << columns));

    [Fact]
    public void AnyShapeIsRightOnTheCpuDevice() => Check(TestDevice.Cpu, 250, Gen.Int[1, 5], Gen.Int[1, 40], Gen.Int[1, 200]);

    // Every lane of a warp is a thread here.
    [Fact]
    public void AnyShapeIsRightWithWholeWarps() => Check(TestDevice.CpuWarp32, 25, Gen.Int[1, 20], Gen.Int[1, 20], Gen.Int[1, 100]);

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
                Compare.Close(y.AsSpan(row * n, n), MatrixOracle.Multiply(x.AsSpan(row / topK * k, k), MatrixOracle.Values(matrices[expertOf[row]]), 1, n, k), Tolerance);
        });
    }

    private static void Check(TestDevice which, int times, Gen<int> rows, Gen<int> outputs, Gen<int> inputs)
    {
        GpuDevice device = TestDevices.Get(which);
        Property.Holds(Gen.Select(Gen.Enum<WeightFormat>(), Block, rows, outputs, inputs, Gen.Bool), times, test =>
        {
            (WeightFormat format, ScaleBlock block, int m, int n, int k, bool isUnaligned) = test;
            HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(n * k, n + k), n, k, format, block);
            BFloat16[] x = RandomData.GaussianBf16(m * k, m + k);
            using QuantizedMatrix weights = QuantizedMatrix.Upload(device, w);
            using var input = GuardedBuffer<BFloat16>.Input(device, x, misalignment: isUnaligned ? 2 : 0);
            using var output = GuardedBuffer<float>.Output(device, m * n);
            Linear.Multiply(device.DefaultStream, weights, input.View, output.View, m);
            double[] expected = MatrixOracle.Multiply(x, MatrixOracle.Values(w), m, n, k);
            Compare.Close(output.ToArray(), expected, Norm(expected) < Cancelled(x, w, m) ? 1e-3 : Tolerance);
        });
    }

    // A few products may nearly cancel; then the sum's own rounding is a larger part of what is left.
    private static double Norm(double[] y) => Math.Sqrt(y.Sum(v => v * v));

    private static double Cancelled(BFloat16[] x, HostMatrix w, int m)
    {
        double[] magnitudes = Array.ConvertAll(MatrixOracle.Values(w), Math.Abs);
        BFloat16[] inputs = Array.ConvertAll(x, v => (BFloat16)Math.Abs((float)v));
        return Norm(MatrixOracle.Multiply(inputs, magnitudes, m, w.N, w.K)) / 50;
    }
}
