using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu.Bench;

/// <summary>The launch that quantises activations, for every K of the shapes. What it reads was just written, as in a model: it comes from L2.</summary>
internal static class QuantizeActivationsBench
{
    public static IEnumerable<ResultRecord> Run(GpuStream stream, BenchOptions options)
    {
        ActivationFormat[] formats = [.. options.Products.Where(p => p.Activation is not null).Select(p => p.Activation!.Value).Distinct()];
        foreach (int k in options.Shapes.Select(s => s.K).Distinct().Order())
            foreach (int m in options.Rows)
                foreach (ActivationFormat format in formats)
                    yield return Time(stream, format, m, k);
    }

    private static ResultRecord Time(GpuStream stream, ActivationFormat format, int m, int k)
    {
        using DeviceBuffer<BFloat16> x = GemvOperands.RandomInputs(stream, m, k);
        using var target = new QuantizedActivations(stream.Device, format, m, k);
        GpuTime time = GpuTimer.Measure(stream, 1, _ => ActivationQuantizer.Quantize(stream, x, target, m));
        double gbps = (x.Bytes + target.Bytes) / time.Us / 1000;
        KernelResources? resources = stream.Device.Kernels.Resources(format switch
        {
            ActivationFormat.Fp8Group128 => ActivationQuantizer.ToFp8Group128,
            ActivationFormat.Fp8Group32 => ActivationQuantizer.ToFp8Group32,
            ActivationFormat.Nvfp4 => ActivationQuantizer.ToNvfp4,
            ActivationFormat.Int4 => ActivationQuantizer.ToInt4,
            _ => throw new NotSupportedException($"No kernel for {format}."),
        });
        Console.Error.WriteLine($"quantise to {format,-11} M={m,-2} K={k,-6} {time.Us,8:F2} µs {gbps,7:F1} GB/s");
        return new ResultRecord
        {
            Bench = "quantize-activations",
            Format = format.ToString(),
            M = m,
            K = k,
            Us = Math.Round(time.Us, 3),
            UsMin = Math.Round(time.UsMin, 3),
            UsMax = Math.Round(time.UsMax, 3),
            Gbps = Math.Round(gbps, 1),
            Registers = resources?.Registers,
            LocalBytes = resources?.LocalBytes,
            Device = stream.Device.Name,
            Driver = ResultRecord.DriverOf(stream.Device),
        };
    }
}
