using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// Products of many rows: every weight format, shape and M in one run with cuBLAS and the card's read bandwidth, on the path that the
/// plan chooses or on every tile that there is. The output of each timed kernel is checked.
/// </summary>
internal sealed class GemmBench
{
    private const string Swept = "sweep";

    // Up to this M the weights must come from memory; above, multiplying hides where they come from.
    private const int ReadBoundRows = 256;

    private readonly GpuStream stream;
    private readonly Cublas? cublas;
    private readonly double read;
    private readonly BenchOptions options;
    private readonly List<ResultRecord> results = [];
    private int wrong;

    private GemmBench(GpuStream stream, Cublas? cublas, BenchOptions options)
    {
        this.stream = stream;
        this.cublas = cublas;
        this.options = options;
        read = ReadBandwidth.Measure(stream);
        Console.Error.WriteLine($"{stream.Device.Name}: {read:F0} GB/s read bandwidth, cuBLAS {(cublas is null ? "not found" : "found")}");
    }

    // One way to run a product: what the plan chooses where both are null. A new path is a new entry in Ways.
    private readonly record struct Way(LinearPath? Path = null, GemmTile? Tile = null);

    /// <summary>Times all that the options name.</summary>
    /// <param name="options">Formats, shapes, rows and tiles.</param>
    /// <param name="wrong">Products whose output was not right; they are reported and have no record.</param>
    /// <exception cref="ArgumentException">There is no card.</exception>
    public static IReadOnlyList<ResultRecord> Run(BenchOptions options, out int wrong)
    {
        using GpuDevice device = options.OpenDevice();
        if (!device.IsCuda)
            throw new ArgumentException("gemm times a card; there is none.");
        using GpuStream stream = device.CreateStream();
        using Cublas? cublas = Cublas.TryOpen(stream);
        var bench = new GemmBench(stream, cublas, options);
        foreach ((int k, int n) in options.GemmShapes)
            bench.TimeShape(k, n);
        wrong = bench.wrong;
        return bench.results;
    }

    private void TimeShape(int k, int n)
    {
        var opponents = new Dictionary<int, double>();
        WeightFormat[] formats = [.. options.Products.Where(p => p.Activation is null).Select(p => p.Format).Distinct().Order()];
        // cuBLAS has BF16 weights, and its times are wanted by all others.
        foreach (WeightFormat format in cublas is null ? formats : formats.Prepend(WeightFormat.Bf16).Distinct())
        {
            using var weights = new GemvWeights(stream, format, format.BlockOr(null), n, k);
            foreach (int m in options.GemmRows)
            {
                using var operands = new GemmOperands(stream, m, n, k);
                if (format == WeightFormat.Bf16 && cublas is not null)
                    opponents[m] = GpuTimer.Measure(stream, Rotations(weights, m), i => cublas.Multiply(weights[i].Codes, operands.X, operands.Y, m, n, k)).Us;
                if (!formats.Contains(format))
                    continue;
                foreach (Way way in Ways(format))
                    Time(weights, operands, m, way, opponents.TryGetValue(m, out double us) ? us : null);
            }
        }
    }

    private IEnumerable<Way> Ways(WeightFormat format)
    {
        if (!options.AllTiles)
            return [default];
        LinearDevice device = LinearDevice.Of(stream.Device);
        return Enum.GetValues<GemmTile>().Where(t => GemmKernels.Exists(format, t) && GemmKernels.Info(format, t).Fits(device)).Select(t => new Way(LinearPath.Gemm, t));
    }

    private void Time(GemvWeights weights, GemmOperands operands, int m, Way way, double? opponent)
    {
        QuantizedMatrix last = weights.Last;
        (int k, int n) = (last.K, last.N);
        void Multiply(QuantizedMatrix w) => Linear.Launch(stream, w, operands.X, operands.Y.View.Cast<byte>(), false, (m, 0), way.Path, tile: way.Tile);
        GpuTime time = GpuTimer.Measure(stream, Rotations(weights, m), i => Multiply(weights[i]));
        var shape = new LinearShape(m, n, k, last.Format, Linear.IsAligned(last, operands.X), 0, last.Block);
        LinearPlan plan = LinearPlan.Choose(shape, LinearDevice.Of(stream.Device), way.Path, tile: way.Tile);
        KernelResources? resources = stream.Device.Kernels.Resources(LinearKernels.Get(plan, last.Format, m, false, false));
        double bytes = last.Bytes + (2.0 * m * (k + n));
        Add(new ResultRecord
        {
            Bench = "gemm",
            Name = way == default ? ReportGemm.Planned : Swept,
            Format = last.Format.ToString(),
            Path = plan.Tile is { } tile ? $"{plan.Path} {tile}" : plan.Path.ToString(),
            M = m,
            N = n,
            K = k,
            Us = Math.Round(time.Us, 3),
            UsMin = Math.Round(time.UsMin, 3),
            UsMax = Math.Round(time.UsMax, 3),
            Gbps = Math.Round(bytes / time.Us / 1000, 1),
            Tflops = Math.Round(2.0 * m * n * k / time.Us / 1e6, 1),
            ReadGbps = Math.Round(read, 1),
            CublasUs = opponent is { } us ? Math.Round(us, 3) : null,
            CublasRatio = opponent is { } other ? Math.Round(other / time.Us, 3) : null,
            RelError = operands.Error(() => Multiply(last), weights.Check),
            Registers = resources?.Registers,
            LocalBytes = resources?.LocalBytes,
            Device = stream.Device.Name,
            Driver = ResultRecord.DriverOf(stream.Device),
        });
    }

    private void Add(ResultRecord r)
    {
        Console.Error.WriteLine($"{r.Format,-11} {r.Path,-18} M={r.M,-4} {r.K,6}×{r.N,-6} {r.Us,9:F2} µs {r.Tflops,6:F1} TFLOPS {r.Gbps,6:F0} GB/s, cuBLAS BF16 {r.CublasUs,9:F2} µs ({r.CublasRatio:F2}×), error {r.RelError:E1}, {r.Registers} registers, {r.LocalBytes} local");
        if (GemvOperands.IsRight(r))
        {
            results.Add(r);
            return;
        }
        wrong++;
        Console.Error.WriteLine($"WRONG: {r.Path} {r.Format} M={r.M} N={r.N} K={r.K} has a relative error of {r.RelError:E2}; not recorded.");
    }

    private static int Rotations(GemvWeights weights, int m) => m <= ReadBoundRows ? weights.Count : 1;
}
