using GpuKit.Ilgpu.Kernels;
using ILGPU;

namespace GpuKit.Ilgpu.Bench;

internal static class HopperSweep
{
    public static void Run(BenchOptions options)
    {
        using GpuDevice device = options.OpenDevice();
        GpuStream stream = device.CreateStream();
        using Cublas? cublas = Cublas.TryOpen(stream);
        foreach ((int k, int n) in new[] { (4096, 14336), (14336, 4096), (8192, 8192), (2048, 5120) })
        {
            long bytes = (long)n * k * 2;
            int copies = (int)Math.Clamp((300L << 20) / bytes, 2, 24);
            QuantizedMatrix[] w = [.. Enumerable.Range(0, copies).Select(i => Fill(stream, new QuantizedMatrix(device, WeightFormat.Bf16, n, k), i))];
            QuantizedMatrix[] w8 = [.. Enumerable.Range(0, copies).Select(i => Fill(stream, new QuantizedMatrix(device, WeightFormat.Fp8Block, n, k), i))];
            foreach (int m in new[] { 64, 128, 256, 512, 1024, 2048, 8192 })
            {
                using DeviceBuffer<BFloat16> x = device.Allocate<BFloat16>((long)m * k), y = device.Allocate<BFloat16>((long)m * n);
                RandomBits.Fill(stream, x.View.Cast<uint>(), 7, 0x807F807F, 0x3F003F00);
                using var x8 = new QuantizedActivations(device, ActivationFormat.Fp8Group128, m, k);
                ActivationQuantizer.Quantize(stream, x, x8, m);
                double flops = 2.0 * m * n * k;
                double cu = cublas is null ? 0 : GpuTimer.Measure(stream, copies, i => cublas.Multiply(w[i].Codes, x, y, m, n, k)).Us;
                string line = $"{k}x{n} m={m} cublas {cu:F1} us {flops / cu / 1e6:F0} TF |";
                foreach (HopperTileKind kind in Enum.GetValues<HopperTileKind>())
                    foreach (bool clusters in new[] { false, true })
                    {
                        HopperPlan plan = HopperPlan.Of(kind, clusters, m, n, device.MultiprocessorCount);
                        double us = GpuTimer.Measure(stream, copies, i =>
                        {
                            if (HopperPlan.IsFp8(kind))
                                HopperLinear.Launch(stream, w8[i], x8, y.View.Cast<byte>(), false, (m, 0), plan);
                            else
                                HopperLinear.Launch(stream, w[i], x, y.View.Cast<byte>(), false, (m, 0), plan);
                        }).Us;
                        line += $" {kind}{(clusters ? "c" : "")} {us:F1} {flops / us / 1e6:F0} ({cu / us:F2})";
                    }
                Console.WriteLine(line);
            }
            foreach (QuantizedMatrix q in w.Concat(w8))
                q.Dispose();
        }
    }

    private static QuantizedMatrix Fill(GpuStream stream, QuantizedMatrix q, int seed)
    {
        if (q.Format == WeightFormat.Bf16)
            RandomBits.Fill(stream, q.Codes.View.Cast<uint>(), (uint)seed + 1, 0x807F807F, 0x3C003C00);
        else
        {
            RandomBits.Fill(stream, q.Codes.View.Cast<uint>(), (uint)seed + 1, 0xBFBFBFBF, 0);
            RandomBits.Fill(stream, q.ScaleTable.Blocks.Cast<uint>(), (uint)seed + 1, 0x007FFFFF, 0x3A000000);
        }
        return q;
    }
}
