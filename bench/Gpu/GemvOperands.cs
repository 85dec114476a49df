using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu.Bench;

/// <summary>Everything of a product but the weights: activations, quantised beforehand where they are, output, and what it should be.</summary>
internal sealed class GemvOperands : IDisposable
{
    // Rounding the output to BF16 is 1.7e-3 of it.
    private const double MostError = 2e-3;

    private readonly GpuStream stream;
    private readonly GemvProduct product;
    private readonly Accumulator accumulator;
    private readonly int m;
    private readonly int n;
    private readonly DeviceBuffer<BFloat16> x;
    private readonly DeviceBuffer<BFloat16> y;
    private readonly QuantizedActivations? quantized;
    private readonly Lazy<IReadOnlyList<double[]>> inputs;

    public GemvOperands(GpuStream stream, GemvProduct product, Accumulator accumulator, int m, int n, int k)
    {
        (this.stream, this.product, this.accumulator, this.m, this.n) = (stream, product, accumulator, m, n);
        x = RandomInputs(stream, m, k);
        y = stream.Device.Allocate<BFloat16>((long)m * n);
        if (product.Activation is { } activation)
        {
            quantized = new QuantizedActivations(stream.Device, activation, m, k);
            ActivationQuantizer.Quantize(stream, x, quantized, m);
        }
        inputs = new(() => quantized is null ? GemvCheck.Inputs(x.ToArray(stream), m, k) : GemvCheck.Inputs(stream, quantized, m));
    }

    /// <summary>Whether a record's error is that of rounding and no more. NaN is not.</summary>
    public static bool IsRight(ResultRecord record) => record.RelError <= MostError && record.RelErrorFloat32 is null or <= MostError;

    /// <summary>Rows of BF16 numbers from −1 to 1.</summary>
    public static DeviceBuffer<BFloat16> RandomInputs(GpuStream stream, int m, int k)
    {
        var random = new Random(m + k);
        var values = new BFloat16[m * k];
        for (int i = 0; i < values.Length; i++)
            values[i] = (BFloat16)(float)((random.NextDouble() * 2) - 1);
        return stream.Device.Upload<BFloat16>(values);
    }

    /// <summary>The launch that is timed.</summary>
    public void Multiply(QuantizedMatrix w)
    {
        if (quantized is null)
            Linear.Multiply(stream, w, x, y, m, 0, accumulator);
        else
            Linear.Multiply(stream, w, quantized, y, m, 0, accumulator);
    }

    /// <summary>Relative error of the timed launch.</summary>
    public double Error(QuantizedMatrix w, GemvCheck check)
    {
        Multiply(w);
        BFloat16[] output = y.ToArray(stream);
        return check.Error(inputs.Value, i => (float)output[i]);
    }

    /// <summary>Relative error of the same product with float32 output: without the rounding to BF16, that of the sums.</summary>
    public double ErrorFloat32(QuantizedMatrix w, GemvCheck check)
    {
        using DeviceBuffer<float> full = stream.Device.Allocate<float>((long)m * n);
        if (quantized is null)
            Linear.Multiply(stream, w, x, full, m, 0, accumulator);
        else
            Linear.Multiply(stream, w, quantized, full, m, 0, accumulator);
        float[] output = full.ToArray(stream);
        return check.Error(inputs.Value, i => output[i]);
    }

    /// <summary>The path that is timed and its kernel's resources on a card.</summary>
    public (string Path, KernelResources? Resources) Kernel(QuantizedMatrix w)
    {
        GpuDevice device = stream.Device;
        var shape = new LinearShape(m, w.N, w.K, w.Format, Linear.IsAligned(w, x), 0, w.Block, product.Activation);
        if (accumulator == Accumulator.Float32 && HopperSkinnyPlan.IsChosen(shape, LinearDevice.Of(device)))
            return (nameof(HopperSkinnyGemm), device.Kernels.Resources(HopperSkinnyKernels.Get(w.Format, product.Activation, m, false)));
        if (accumulator == Accumulator.Float32 && HopperFp8SkinnyPlan.IsChosen(shape, LinearDevice.Of(device)))
            return (nameof(HopperFp8Skinny), device.Kernels.Resources(HopperFp8SkinnyLinear.Get(m, false)));
        if (accumulator == Accumulator.Float32 && HopperSweepPlan.IfChosen(shape, LinearDevice.Of(device)) is not null)
            return (nameof(HopperSweep), device.Kernels.Resources(HopperSweepKernels.Get(w.Format, product.Activation, m, false)));
        if (quantized is null && accumulator == Accumulator.Float32)
        {
            LinearPlan plan = LinearPlan.Choose(shape, LinearDevice.Of(device));
            if (plan.ArrangesInputs)
                return (nameof(SkinnyArranging), device.Kernels.Resources(SkinnyKernels.GetArranging(w.Format, null, m, false)));
            return (plan.Path.ToString(), plan.Split is { } split ? device.Kernels.Resources(SplitKernels.Get(split.Tile)) : device.Kernels.Resources(LinearKernels.Get(plan, w.Format, m, false, false)));
        }
        LinearPlan accurate = LinearPlan.ChooseAccurate(shape with { Aligned = accumulator == Accumulator.Float32 }, LinearDevice.Of(device));
        if (accurate.ArrangesInputs)
            return (nameof(SkinnyArranging), device.Kernels.Resources(SkinnyKernels.GetArranging(w.Format, product.Activation, m, false)));
        if (accurate.Path == LinearPath.SkinnyGemm)
            return (accurate.Path.ToString(), device.Kernels.Resources(SkinnyKernels.Get(w.Format, product.Activation, m, false)));
        if (accurate.Tile is { } tile)
            return (accurate.Path.ToString(), device.Kernels.Resources(CodeKernels.Get(accurate.Decoding, tile)));
        return (accurate.Path.ToString(), device.Kernels.Resources(AccurateKernels.Get(accurate, w.Format, product.Activation, accumulator, false)));
    }

    public void Dispose()
    {
        x.Dispose();
        y.Dispose();
        quantized?.Dispose();
    }
}
