using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// Products of few rows: every format, shape and M, in one run with cuBLAS and the card's read bandwidth. Weights rotate over
/// more than four times the L2, so nothing is read from it twice; the output of the timed kernel is checked.
/// </summary>
internal static class GemvBench
{
    private const int CheckedRows = 48;

    private static readonly double[] E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6];

    private static readonly (int K, int N)[] Shapes =
    [
        (2048, 768), (768, 2048), (2048, 2048), (2048, 5120), (2048, 8192), (4096, 4096),
        (4096, 14336), (14336, 4096), (8192, 8192), (8192, 29568), (29568, 8192), (2048, 151936),
    ];

    public static IReadOnlyList<ResultRecord> Run(BenchOptions options)
    {
        using GpuDevice device = options.OpenDevice();
        if (!device.IsCuda)
            throw new ArgumentException("gemv times a card; there is none.");
        using GpuStream stream = device.CreateStream();
        using Cublas? cublas = Cublas.TryOpen(stream);
        double read = ReadBandwidth.Measure(stream);
        Console.Error.WriteLine($"{device.Name}: {read:F0} GB/s read bandwidth, cuBLAS {(cublas is null ? "not found" : "found")}");
        var results = new List<ResultRecord>();
        foreach ((int k, int n) in Shapes)
        {
            foreach (int m in options.Rows)
            {
                double? opponent = cublas is null ? null : TimeCublas(stream, cublas, (m, n, k)).Us;
                foreach (WeightFormat format in WeightFormats.All)
                    results.Add(Time(stream, format, (m, n, k), read, opponent));
            }
        }
        return results;
    }

    private static ResultRecord Time(GpuStream stream, WeightFormat format, (int M, int N, int K) size, double read, double? cublasUs)
    {
        GpuDevice device = stream.Device;
        (int m, int n, int k) = size;
        QuantizedMatrix[] weights = Weights(stream, format, n, k);
        using DeviceBuffer<BFloat16> x = Inputs(stream, m, k), y = device.Allocate<BFloat16>((long)m * n);
        GpuTime time = GpuTimer.Measure(stream, weights.Length, i => Linear.Multiply(stream, weights[i], x, y, m));
        double error = CheckRows(stream, weights[^1], x, y, size);
        LinearPlan plan = LinearPlan.Choose(new LinearShape(m, n, k, format, true, 0), LinearDevice.Of(device));
        KernelResources? resources = device.Kernels.Resources(LinearKernels.Get(plan, format, m, false, false));
        double gbps = weights[0].Bytes / time.Us / 1000;
        foreach (QuantizedMatrix matrix in weights)
            matrix.Dispose();
        var record = new ResultRecord
        {
            Bench = "gemv",
            Format = format.ToString(),
            Path = plan.Path.ToString(),
            M = m,
            N = n,
            K = k,
            Us = Math.Round(time.Us, 3),
            UsMin = Math.Round(time.UsMin, 3),
            UsMax = Math.Round(time.UsMax, 3),
            Gbps = Math.Round(gbps, 1),
            ReadGbps = Math.Round(read, 1),
            ReadRatio = Math.Round(gbps / read, 4),
            CublasUs = cublasUs is { } us ? Math.Round(us, 3) : null,
            CublasRatio = cublasUs is { } other ? Math.Round(other / time.Us, 3) : null,
            RelError = error,
            Registers = resources?.Registers,
            LocalBytes = resources?.LocalBytes,
            Device = device.Name,
            Driver = ResultRecord.DriverOf(device),
        };
        Console.Error.WriteLine($"{format,-9} {record.Path,-10} M={m,-2} {k,6}×{n,-6} {time.Us,8:F2} µs {gbps,7:F0} GB/s {gbps / read,6:P1} of read, cuBLAS BF16 {cublasUs,8:F2} µs ({cublasUs / time.Us:F2}×), error {error:E1}, {resources?.Registers} registers, {resources?.LocalBytes} local");
        if (!(error <= 3e-3))
            throw new InvalidOperationException($"{record.Path} {format} M={m} N={n} K={k} is wrong: relative error {error:E2}.");
        return record;
    }

    private static GpuTime TimeCublas(GpuStream stream, Cublas cublas, (int M, int N, int K) size)
    {
        QuantizedMatrix[] weights = Weights(stream, WeightFormat.Bf16, size.N, size.K);
        using DeviceBuffer<BFloat16> x = Inputs(stream, size.M, size.K), y = stream.Device.Allocate<BFloat16>((long)size.M * size.N);
        GpuTime time = GpuTimer.Measure(stream, weights.Length, i => cublas.Multiply(weights[i].Codes, x, y, size.M, size.N, size.K));
        foreach (QuantizedMatrix matrix in weights)
            matrix.Dispose();
        return time;
    }

    private static QuantizedMatrix[] Weights(GpuStream stream, WeightFormat format, int n, int k)
    {
        GpuDevice device = stream.Device;
        long bytes = format.Info().Bytes(n, k);
        int count = (int)(4 * device.L2Bytes / bytes) + 2;
        var matrices = new QuantizedMatrix[count];
        for (int i = 0; i < count; i++)
        {
            matrices[i] = new QuantizedMatrix(device, format, n, k);
            // BF16: ±[0.5, 1). FP8: any sign and fraction, exponents 0..7 (up to 1.875), no NaN. Four bits: every code is a number.
            (uint keep, uint set) = format switch { WeightFormat.Bf16 => (0x807F807Fu, 0x3F003F00u), WeightFormat.Fp8Block or WeightFormat.Fp8TwoTerm => (0xBFBFBFBFu, 0u), _ => (uint.MaxValue, 0u) };
            RandomBits.Fill(stream, matrices[i].Codes.View.Cast<uint>(), (uint)(i + 1), keep, set);
            if (matrices[i].Scales.Length > 0)
                matrices[i].Scales.CopyFrom(stream, Enumerable.Range(0, (int)matrices[i].Scales.Length).Select(s => 0.5f + (s % 13 * 0.125f)).ToArray());
            // E4M3 from 0.5 to 1.875.
            if (matrices[i].GroupScales.Length > 0)
                RandomBits.Fill(stream, matrices[i].GroupScales.View.Cast<uint>(), (uint)(i + 1001), 0x0F0F0F0Fu, 0x30303030u);
            if (matrices[i].ZeroPoints.Length > 0)
                RandomBits.Fill(stream, matrices[i].ZeroPoints.View.Cast<uint>(), (uint)(i + 2001), uint.MaxValue, 0u);
        }
        stream.Synchronize();
        return matrices;
    }

    private static DeviceBuffer<BFloat16> Inputs(GpuStream stream, int m, int k)
    {
        var random = new Random(m + k);
        var values = new BFloat16[m * k];
        for (int i = 0; i < values.Length; i++)
            values[i] = (BFloat16)(float)((random.NextDouble() * 2) - 1);
        return stream.Device.Upload<BFloat16>(values);
    }

    // Relative error of some rows of W, spread over the matrix and its edges, against double.
    private static double CheckRows(GpuStream stream, QuantizedMatrix w, DeviceBuffer<BFloat16> x, DeviceBuffer<BFloat16> y, (int M, int N, int K) size)
    {
        (int m, int n, int k) = size;
        Linear.Multiply(stream, w, x, y, m);
        BFloat16[] inputs = x.ToArray(stream), outputs = y.ToArray(stream);
        float[] scales = w.Scales.ToArray(stream);
        double difference = 0, norm = 0;
        for (int i = 0; i < CheckedRows; i++)
        {
            int row = (int)((long)i * (n - 1) / (CheckedRows - 1));
            double[] values = DecodeRow(stream, w, row, scales, term: 0);
            if (w.Format == WeightFormat.Fp8TwoTerm)
                values = [.. values.Zip(DecodeRow(stream, w, row, scales, term: 1), (first, second) => first + second)];
            for (int j = 0; j < m; j++)
            {
                double sum = 0;
                for (int c = 0; c < k; c++)
                    sum += values[c] * (float)inputs[(j * k) + c];
                double actual = (float)outputs[((long)j * n) + row];
                difference += (actual - sum) * (actual - sum);
                norm += sum * sum;
            }
        }
        return Math.Sqrt(difference / norm);
    }

    private static double[] DecodeRow(GpuStream stream, QuantizedMatrix w, int row, float[] scales, int term)
    {
        var codes = new byte[(int)w.Format.Info().RowBytes(w.K)];
        w.Codes.CopyTo(stream, codes, (((long)term * w.N) + row) * codes.Length);
        int columnBlocks = w.Block.ColumnBlocks(w.K);
        var groups = new byte[w.GroupScales.Length > 0 ? columnBlocks : 0];
        w.GroupScales.CopyTo(stream, groups, (long)row * groups.Length);
        var zeros = new byte[w.ZeroPoints.Length > 0 ? (columnBlocks + 1) / 2 : 0];
        w.ZeroPoints.CopyTo(stream, zeros, (long)(row / w.Block.Rows) * zeros.Length);
        var values = new double[w.K];
        for (int c = 0; c < w.K; c++)
        {
            int group = c / w.Block.Columns, block = (((term * w.Block.RowBlocks(w.N)) + (row / w.Block.Rows)) * columnBlocks) + group;
            int nibble = (codes[c / 2] >> (c % 2 * 4)) & 15;
            values[c] = w.Format switch
            {
                WeightFormat.Bf16 => Bf16.ToFloat(MemoryMarshal.Cast<byte, ushort>(codes.AsSpan())[c]),
                WeightFormat.Fp8Block or WeightFormat.Fp8TwoTerm => E4M3(codes[c]) * scales[block],
                WeightFormat.Nvfp4 => E2M1[nibble] * E4M3(groups[c / 16]) * scales[0],
                WeightFormat.Int4 => (nibble > 7 ? nibble - 16 : nibble) * (double)scales[block],
                WeightFormat.Int4Zero => (nibble - ((zeros[group / 2] >> (group % 2 * 4)) & 15)) * (double)scales[block],
                _ => throw new NotSupportedException($"No check for {w.Format}."),
            };
        }
        return values;
    }

    private static double E4M3(byte code)
    {
        int exponent = (code >> 3) & 15, fraction = code & 7;
        double magnitude = exponent == 0 ? fraction * Math.Pow(2, -9) : (1 + (fraction / 8.0)) * Math.Pow(2, exponent - 7);
        return code >= 128 ? -magnitude : magnitude;
    }
}
