using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Runtime;

/// <summary>A card whose memory is really used up. Nothing else may want some of it meanwhile.</summary>
[Collection(nameof(Alone))]
public sealed class FullCardTests
{
    private const int N = 512, K = 1024;

    [Fact]
    public void ProductsRunOnAFullCardAndMemoryComesBack()
    {
        _ = TestDevices.Get(TestDevice.Cuda);
        using GpuDevice device = TestDevices.Open(TestDevice.Cuda);
        using QuantizedMatrix w = QuantizedMatrix.Upload(device, Quantizer.Quantize(RandomData.Gaussian(N * K, 1), N, K, WeightFormat.Fp8Block));
        using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(RandomData.GaussianBf16(K, 2));
        using DeviceBuffer<float> y = device.Allocate<float>(N);
        Linear.Multiply(device.DefaultStream, w, x, y, 1);
        float[] expected = y.ToArray(device.DefaultStream);
        var before = (device.Ledger.LiveBytes, device.Ledger.LiveBuffers);
        var held = new List<DeviceBuffer<byte>>();
        try
        {
            // Ever smaller blocks, until not even 2 MiB are left.
            for (long bytes = 1L << 33; bytes >= 1 << 21;)
            {
                try
                {
                    held.Add(device.Allocate<byte>(bytes));
                }
                catch (GpuException e)
                {
                    Assert.Equal(GpuFault.OutOfMemory, e.Fault);
                    Assert.Contains($"{bytes:N0} bytes", e.Message, StringComparison.Ordinal);
                    bytes >>= 1;
                }
            }
            Assert.True(device.Ledger.LiveBytes > device.MemoryBytes / 4, $"Only {device.Ledger.LiveBytes:N0} bytes were to be had.");
            Assert.False(device.IsLost);
            y.Fill(device.DefaultStream, 0);
            Linear.Multiply(device.DefaultStream, w, x, y, 1);
            Assert.Equal(expected, y.ToArray(device.DefaultStream));
        }
        finally
        {
            held.ForEach(block => block.Dispose());
        }
        Assert.Equal(before, (device.Ledger.LiveBytes, device.Ledger.LiveBuffers));
        device.Allocate<byte>(1L << 30).Dispose();
    }
}
