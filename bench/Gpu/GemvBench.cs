using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// Products of few rows: every product, shape and M, in one run with cuBLAS and the card's read bandwidth. Weights are made once
/// a shape and rotate; the output of the timed kernel is checked.
/// </summary>
internal sealed class GemvBench
{
    // The shapes that accumulators are compared on, at M = 1.
    private static readonly (int K, int N)[] AccumulatorShapes = [(4096, 4096), (8192, 8192), (8192, 29568)];

    private readonly GpuStream stream;
    private readonly Cublas? cublas;
    private readonly double read;
    private readonly BenchOptions options;
    private readonly List<ResultRecord> results = [];
    private int wrong;

    private GemvBench(GpuStream stream, Cublas? cublas, BenchOptions options)
    {
        this.stream = stream;
        this.cublas = cublas;
        this.options = options;
        read = ReadBandwidth.Measure(stream);
        Console.Error.WriteLine($"{stream.Device.Name}: {read:F0} GB/s read bandwidth, cuBLAS {(cublas is null ? "not found" : "found")}");
    }

    /// <summary>Times all that the options name.</summary>
    /// <param name="options">Products, shapes and rows.</param>
    /// <param name="wrong">Products whose output was not right; they are reported and have no record.</param>
    /// <exception cref="ArgumentException">There is no card.</exception>
    public static IReadOnlyList<ResultRecord> Run(BenchOptions options, out int wrong)
    {
        using GpuDevice device = options.OpenDevice();
        if (!device.IsCuda)
            throw new ArgumentException("gemv times a card; there is none.");
        using GpuStream stream = device.CreateStream();
        using Cublas? cublas = Cublas.TryOpen(stream);
        var bench = new GemvBench(stream, cublas, options);
        foreach ((int k, int n) in options.Shapes)
            bench.TimeShape(k, n);
        wrong = bench.wrong;
        return [.. bench.results, .. QuantizeActivationsBench.Run(stream, options)];
    }

    // Weights of a kind are made once and released before the next kind's.
    private void TimeShape(int k, int n)
    {
        var opponents = new Dictionary<int, double>();
        GemvProduct bf16 = new(WeightFormat.Bf16);
        IEnumerable<GemvProduct> all = cublas is null ? options.Products : options.Products.Prepend(bf16);
        // cuBLAS has BF16 weights, and its times are wanted by all others.
        foreach (var kind in all.OrderBy(p => p.Format).GroupBy(p => (p.Format, Block: p.Block(k))))
        {
            using var weights = new GemvWeights(stream, kind.Key.Format, kind.Key.Block, n, k);
            if (kind.Key.Format == WeightFormat.Bf16 && cublas is not null)
                foreach (int m in options.Rows)
                    opponents[m] = TimeCublas(weights, m).Us;
            foreach (GemvProduct product in kind.Distinct().Where(options.Products.Contains))
                foreach (int m in options.Rows)
                    Time(weights, product, m, opponents.TryGetValue(m, out double us) ? us : null);
        }
    }

    private void Time(GemvWeights weights, GemvProduct product, int m, double? opponent)
    {
        (int k, int n) = (weights.Last.K, weights.Last.N);
        bool compares = m == 1 && product.ComparesAccumulators && AccumulatorShapes.Contains((k, n));
        foreach (Accumulator accumulator in compares ? Enum.GetValues<Accumulator>() : [Accumulator.Float32])
        {
            using var operands = new GemvOperands(stream, product, accumulator, m, n, k);
            GpuTime time = GpuTimer.Measure(stream, weights.Count, i => operands.Multiply(weights[i]));
            // Kernels that may not overlap are timed alone as it is.
            bool isWeightFormat = product.Activation is null && accumulator == Accumulator.Float32;
            GpuTime? alone = m == 1 && isWeightFormat ? GpuTimer.Measure(stream, weights.Count, i => operands.Multiply(weights[i]), overlap: false) : null;
            double gbps = weights.Last.Bytes / time.Us / 1000;
            (string path, KernelResources? resources) = operands.Kernel(weights.Last);
            var record = new ResultRecord
            {
                Bench = "gemv",
                Format = product.Format.ToString(),
                Activation = product.Activation?.ToString(),
                Accumulator = accumulator == Accumulator.Float32 ? null : accumulator.ToString(),
                Path = path,
                M = m,
                N = n,
                K = k,
                Us = Math.Round(time.Us, 3),
                UsAlone = alone is { } a ? Math.Round(a.Us, 3) : null,
                UsMin = Math.Round(time.UsMin, 3),
                UsMax = Math.Round(time.UsMax, 3),
                Gbps = Math.Round(gbps, 1),
                ReadGbps = Math.Round(read, 1),
                ReadRatio = Math.Round(gbps / read, 4),
                CublasUs = opponent is { } us ? Math.Round(us, 3) : null,
                CublasRatio = opponent is { } other ? Math.Round(other / time.Us, 3) : null,
                RelError = operands.Error(weights.Last, weights.Check),
                RelErrorFloat32 = compares ? operands.ErrorFloat32(weights.Last, weights.Check) : null,
                Registers = resources?.Registers,
                LocalBytes = resources?.LocalBytes,
                Device = stream.Device.Name,
                Driver = ResultRecord.DriverOf(stream.Device),
            };
            Add(product, record);
        }
    }

    private void Add(GemvProduct product, ResultRecord r)
    {
        Console.Error.WriteLine($"{product.Name,-20} {r.Accumulator,-7} {r.Path,-10} M={r.M,-2} {r.K,6}×{r.N,-6} {r.Us,8:F2} µs (alone {r.UsAlone,8:F2}) {r.Gbps,7:F0} GB/s {r.ReadRatio,6:P1} of read, cuBLAS BF16 {r.CublasUs,8:F2} µs ({r.CublasRatio:F2}×), error {r.RelError:E1} {r.RelErrorFloat32:E1}, {r.Registers} registers, {r.LocalBytes} local");
        if (GemvOperands.IsRight(r))
        {
            results.Add(r);
            return;
        }
        wrong++;
        Console.Error.WriteLine($"WRONG: {r.Path} {product.Name} M={r.M} N={r.N} K={r.K} has a relative error of {r.RelError:E2}; not recorded.");
    }

    private GpuTime TimeCublas(GemvWeights weights, int m)
    {
        (int k, int n) = (weights.Last.K, weights.Last.N);
        using DeviceBuffer<BFloat16> x = GemvOperands.RandomInputs(stream, m, k), y = stream.Device.Allocate<BFloat16>((long)m * n);
        return GpuTimer.Measure(stream, weights.Count, i => cublas!.Multiply(weights[i].Codes, x, y, m, n, k));
    }
}
