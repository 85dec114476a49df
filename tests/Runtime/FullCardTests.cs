using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Runtime;

/// <summary>A card whose memory is really used up. Nothing else may want some of it meanwhile.</summary>
[Collection(nameof(Alone))]
public sealed class FullCardTests
{
    private const int N = 512, K = 1024, Crowd = 32;

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
        using DeviceBuffer<BFloat16> crowd = device.Upload<BFloat16>(RandomData.GaussianBf16(Crowd * K, 3));
        using DeviceBuffer<float> wide = device.Allocate<float>(Crowd * N);
        using GpuStream fresh = device.CreateStream();
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
            // A stream that needs memory of its own for the first time, and one that needs none.
            Assert.Equal(GpuFault.OutOfMemory, Assert.Throws<GpuException>(() => Linear.Multiply(fresh, w, crowd, wide, Crowd)).Fault);
            Assert.Equal(0, device.Ledger.ScratchBytes);
            y.Fill(device.DefaultStream, 0);
            Linear.Multiply(device.DefaultStream, w, x, y, 1);
            Assert.Equal(expected, y.ToArray(device.DefaultStream));
        }
        finally
        {
            held.ForEach(block => block.Dispose());
        }
        Assert.Equal(before, (device.Ledger.LiveBytes, device.Ledger.LiveBuffers));
        Linear.Multiply(device.DefaultStream, w, crowd, wide, Crowd);
        Assert.All(wide.ToArray(device.DefaultStream), v => Assert.True(float.IsFinite(v)));
        device.Allocate<byte>(1L << 30).Dispose();
    }
}
