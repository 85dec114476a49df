using BenchmarkDotNet.Attributes;
using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu.Bench;

/// <summary>What stands between a caller and a queued kernel.</summary>
/// <remarks>Public because BenchmarkDotNet derives from it in an assembly of its own.</remarks>
public class HostBenchOperators
{
    private const int Launches = 256;
    private const int N = 32;
    private const int K = 64;

    private GpuDevice device = null!;
    private GpuStream stream = null!;
    private QuantizedMatrix weights = null!;
    private DeviceBuffer<BFloat16> x = null!;
    private DeviceBuffer<BFloat16> y = null!;
    private LinearShape shape;
    private LinearDevice limits;
    private KernelDefinition<LinearArgs> kernel = null!;

    /// <summary>A matrix that is too small to matter, its kernel loaded.</summary>
    [GlobalSetup]
    public void Setup()
    {
        device = HostBench.Options.OpenDevice();
        stream = device.CreateStream();
        weights = QuantizedMatrix.Upload(device, Quantizer.Quantize(new float[N * K], N, K, WeightFormat.Bf16));
        x = device.Upload<BFloat16>(new BFloat16[K]);
        y = device.Allocate<BFloat16>(N);
        shape = new LinearShape(1, N, K, WeightFormat.Bf16, true, 0);
        limits = LinearDevice.Of(device);
        kernel = LinearKernels.Get(LinearPlan.Choose(shape, limits), WeightFormat.Bf16, shape.M, float32: false, grouped: false);
        OperatorCall();
    }

    /// <summary>
    /// One Linear.Multiply of one row. On a card the launches are queued, and waited for once in 256; on the CPU a launch runs
    /// the kernel, so the figure is mostly ILGPU's emulation.
    /// </summary>
    [Benchmark(OperationsPerInvoke = Launches)]
    public void OperatorCall()
    {
        for (int i = 0; i < Launches; i++)
            Linear.Multiply(stream, weights, x, y, 1);
        stream.Synchronize();
    }

    /// <summary>Choosing kernel, grid and decoder.</summary>
    [Benchmark]
    public int PlanChoice()
    {
        LinearPlan plan = LinearPlan.Choose(shape, limits);
        // Everything of it is used, or the compiler would leave parts out.
        return plan.GridX ^ plan.GridY ^ plan.Threads ^ (int)plan.Path ^ (int)plan.Decoding;
    }

    /// <summary>From a definition to its loaded kernel.</summary>
    [Benchmark]
    public object KernelLookUp() => device.Kernels.Get(kernel, 0);

    /// <summary>Returns the device.</summary>
    [GlobalCleanup]
    public void Cleanup()
    {
        y.Dispose();
        x.Dispose();
        weights.Dispose();
        stream.Dispose();
        device.Dispose();
    }
}
