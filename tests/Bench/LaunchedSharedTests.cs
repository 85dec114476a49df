using GpuKit.Ilgpu.Bench;
using GpuKit.Ilgpu.Tests.Ops;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Bench;

/// <summary>What the benchmark says of shared memory is what launches ask for.</summary>
public sealed class LaunchedSharedTests
{
    [Fact]
    public void ItIsThatOfTheTileThatRan()
    {
        using GpuDevice device = TestDevices.Open(TestDevice.CpuWarp32);
        const int M = 17, N = 64, K = 128;
        HostMatrix w = Quantizer.Quantize(RandomData.Gaussian(N * K, 1), N, K, WeightFormat.Bf16);
        BFloat16[] x = RandomData.GaussianBf16(M * K, 2);
        LinearPlan plan = LinearPlan.Choose(new LinearShape(M, N, K, WeightFormat.Bf16, true, 0), LinearDevice.Of(device), LinearPath.Gemm);
        int shared = LaunchedShared.Most(device, () => LinearTests.Run(device, w, x, M, LinearPath.Gemm, null));
        Assert.True(plan.SharedBytes > 0);
        Assert.Equal(plan.SharedBytes, shared);
        Assert.Equal(0, LaunchedShared.Most(device, () => { }));
        Assert.Null(device.LaunchObserver);
    }
}
