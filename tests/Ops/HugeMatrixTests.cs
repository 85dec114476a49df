using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Matrices of more than 2³¹ weights: every index beyond the row must be 64 bits wide.</summary>
public sealed class HugeMatrixTests
{
    private const int N = 65_537, K = 32_800;

    // 1.0 in E4M3.
    private const byte One = 0x38;

    [Fact]
    public void Weights_beyond_two_to_the_31_are_read_from_their_places()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        GpuStream stream = device.DefaultStream;
        using var weights = new QuantizedMatrix(device, WeightFormat.Fp8Block, N, K);
        weights.Codes.Fill(stream, 0);
        weights.Scales.CopyFrom(stream, [.. Enumerable.Repeat(1f, (int)weights.Scales.Length)]);
        (int Row, int Column)[] places = [(0, 0), (1, K - 1), (N / 2, 5), (65_472, 17), (N - 1, 0), (N - 1, K - 1)];
        foreach ((int row, int column) in places)
            weights.Codes.CopyFrom(stream, [One], ((long)row * K) + column);
        using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>([.. Enumerable.Range(0, 17 * K).Select(i => (BFloat16)(float)(1 + (i % K % 64)))]);
        foreach ((LinearPath path, int m) in Paths)
        {
            using GuardedBuffer<float> output = GuardedBuffer<float>.Output(device, m * N);
            Linear.Launch(stream, weights, x, output.View.Cast<byte>(), true, (m, 0), path);
            float[] y = output.ToArray();
            for (int row = 0; row < N; row++)
                Assert.Equal(places.Where(p => p.Row == row).Sum(p => 1 + (p.Column % 64)), y[((m - 1) * N) + row]);
        }
    }

    private static IEnumerable<(LinearPath Path, int M)> Paths => [(LinearPath.Gemv, 1), (LinearPath.Scalar, 1), (LinearPath.SkinnyGemm, 9), (LinearPath.Gemm, 17)];
}
