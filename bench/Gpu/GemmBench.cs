using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// Products of many rows: every weight format, shape and M in one run with cuBLAS and the card's read bandwidth, on the path that the
/// plan chooses or on every tile that there is. The output of each timed kernel is checked.
/// </summary>
internal sealed class GemmBench
{
    // Up to this M the weights must come from memory; above, multiplying hides where they come from.
    private const int ReadBoundRows = 256;

    // Products of thousands of rows leave the card at its power limit, where the next 20 ms, of few rows, took up to 40 % longer.
    private const int RestMilliseconds = 500;

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

    // One way to run a product: what the plan chooses where nothing is named. A new path is a new entry in Ways.
    private readonly record struct Way(GemmTile? Tile = null, Fp8Decoding? Decoding = null, HopperTileKind? Hopper = null, bool Clusters = false, int? MixedRows = null, bool Quantises = false, bool Portable = false, LinearPath? Path = null, SplitWay? Split = null, PortableSplit? PortableSplit = null);

    // A kernel of HopperSplitGemm; without a number of parts the plan's.
    private readonly record struct SplitWay(int Teams, int Rows, int? Parts);

    // The same of SplitGemm.
    private readonly record struct PortableSplit(SplitTile Tile, int? Parts);

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
        GemvProduct[] products = [.. options.Products.Where(p => p.Activation is null or ActivationFormat.Fp8Group128)];
        var bf16 = new GemvProduct(WeightFormat.Bf16);
        // cuBLAS has BF16 weights, and its times are wanted by all others.
        GemvProduct[] timed = cublas is null ? products : [.. products.Prepend(bf16).Distinct()];
        foreach (GemvProduct product in timed)
        {
            using var weights = new GemvWeights(stream, product.Format, product.Format.BlockOr(null), n, k);
            Thread.Sleep(RestMilliseconds);
            foreach (int m in options.GemmRows)
            {
                using var operands = new GemmOperands(stream, product.Activation, m, n, k);
                if (product == bf16 && cublas is not null)
                    opponents[m] = GpuTimer.Measure(stream, Rotations(weights, m), i => cublas.Multiply(weights[i].Codes, operands.X, operands.Y, m, n, k)).Us;
                if (!products.Contains(product))
                    continue;
                foreach (Way way in Ways(product))
                    Time(weights, operands, m, way, opponents.TryGetValue(m, out double us) ? us : null);
            }
        }
    }

    private IEnumerable<Way> Ways(GemvProduct product)
    {
        if (options.Tiles == TimedTiles.Portable)
            return product.Activation is null ? [new Way(Portable: true)] : [];
        if (options.Tiles == TimedTiles.Plan)
            return product.Activation is null ? [default] : [default, new Way(Quantises: true)];
        LinearDevice device = LinearDevice.Of(stream.Device);
        var ways = new List<Way>();
        int?[] parts = options.Parts.Count == 0 ? [null] : [.. options.Parts];
        var fewRows = new LinearShape(64, 128, 128, product.Format, true, 0, product.Format.BlockOr(null), product.Activation);
        if (SplitPlan.CanRun(fewRows, device))
            ways.AddRange(from tile in SplitKernels.Tiles(product.Format) where tile.Fits(device) from count in parts select new Way(PortableSplit: new PortableSplit(tile, count)));
        if (HopperSplitPlan.Exists(fewRows, device))
            ways.AddRange(from teams in HopperSplitKernels.TeamCounts from rows in HopperSplitKernels.RowCounts from count in parts select new Way(Split: new SplitWay(teams, rows, count)));
        if (options.Tiles == TimedTiles.Split)
            return ways;
        if (product.Activation is null)
            ways.AddRange(Enum.GetValues<GemmTile>().Where(t => GemmKernels.Exists(product.Format, t) && GemmKernels.Info(product.Format, t).Fits(device)).Select(t => new Way(Tile: t)));
        if (fewRows.CanPipelineCodes(device))
            ways.AddRange(from decoding in CodeKernels.Decodings(product.Format) from tile in CodeKernels.Tiles(product.Format) where CodeKernels.Get(decoding, tile).Traits.RunsOn(stream.Device.Target!.Value) select new Way(Tile: tile, Decoding: decoding));
        if (device.Arch == 90 && (product.Activation is not null || product.Format == WeightFormat.Bf16))
            ways.AddRange(from kind in Enum.GetValues<HopperTileKind>() where HopperPlan.IsFp8(kind) == product.Activation is not null from clusters in new[] { false, true } select new Way(Hopper: kind, Clusters: clusters));
        if (HopperMixedPlan.Exists(fewRows, device))
            ways.AddRange(HopperMixedPlan.TileRowCounts.Select(rows => new Way(MixedRows: rows)));
        return ways;
    }

    private void Time(GemvWeights weights, GemmOperands operands, int m, Way way, double? opponent)
    {
        QuantizedMatrix last = weights.Last;
        (int k, int n) = (last.K, last.N);
        var shape = new LinearShape(m, n, k, last.Format, Linear.IsAligned(last, operands.X), 0, last.Block, operands.Quantized?.Format);
        if ((way.PortableSplit is { } every && (!SplitPlan.CanRun(shape, LinearDevice.Of(stream.Device)) || (every.Tile.Rows == SplitPlan.MostRows) != (m > 32))) || (way.Split is { } kernel && (!shape.CanSplit || m > kernel.Rows)))
            return;
        string name = way == default ? ReportGemm.Planned : way.Quantises ? ReportGemm.Quantising : way.Portable ? ReportGemm.Portable : ReportGemm.Swept;
        if (way.Portable)
        {
            LinearPlan everyCards = LinearPlan.Choose(shape, LinearDevice.Of(stream.Device));
            way = way with { Path = everyCards.Path, Tile = everyCards.Tile };
        }
        SplitPlan? portableSplit = way.PortableSplit is { } of ? SplitPlan.Of(of.Tile, shape, LinearDevice.Of(stream.Device), of.Parts) : null;
        if (portableSplit is not null)
            way = way with { Path = LinearPath.SplitGemm };
        HopperPlan? hopper = way.Hopper is { } kind ? HopperPlan.Of(kind, way.Clusters, m, n, stream.Device.MultiprocessorCount)
            : way is { Tile: null, Path: null, Split: null } && !shape.CanStream && !SplitPlan.IsFasterThanHoppersTiles(shape, LinearDevice.Of(stream.Device)) ? HopperPlan.Choose(shape, LinearDevice.Of(stream.Device)) : null;
        HopperSplitPlan? split = way.Split is { } s ? HopperSplitPlan.Choose(shape, LinearDevice.Of(stream.Device), s.Parts, s.Rows, s.Teams)
            : way is { Tile: null, Path: null, MixedRows: null } && HopperSplitPlan.Exists(shape, LinearDevice.Of(stream.Device)) ? HopperSplitPlan.Choose(shape, LinearDevice.Of(stream.Device)) : null;
        // A plan takes fewer parts where K or the scratch memory has no room for so many: they would be recorded twice, or under a number that nobody has asked for.
        if ((way.PortableSplit?.Parts ?? way.Split?.Parts) is { } wanted && (portableSplit?.Parts ?? split?.Parts) is { } possible && possible != wanted)
        {
            Console.Error.WriteLine($"{last.Format} M={m} {k}×{n}: {wanted} parts would be {possible}, left out ({portableSplit?.Tile.ToString() ?? way.Split.ToString()}).");
            return;
        }
        HopperMixedPlan? mixed = way.MixedRows is { } tileRows ? HopperMixedPlan.Of(tileRows, shape, stream.Device.MultiprocessorCount)
            : way is { Tile: null, Path: null } && !shape.CanStream && !shape.CanSplit && split is null && HopperMixedPlan.Exists(shape, LinearDevice.Of(stream.Device)) ? HopperMixedPlan.Choose(shape, LinearDevice.Of(stream.Device)) : null;
        void Multiply(QuantizedMatrix w)
        {
            if (way.Quantises)
                ActivationQuantizer.Quantize(stream, operands.X, operands.Quantized!, m);
            operands.Multiply(w, way.Hopper is null ? null : hopper, way.MixedRows is null ? null : mixed, way.Split is null ? null : split, portableSplit, way.Path, (way.Tile, way.Decoding));
        }
        GpuTime time = GpuTimer.Measure(stream, Rotations(weights, m), i => Multiply(weights[i]));
        (string path, KernelResources? resources) = Kernel(shape, hopper, mixed, split, portableSplit, way);
        double bytes = last.Bytes + (2.0 * m * (k + n));
        Add(new ResultRecord
        {
            Bench = "gemm",
            Name = name,
            Format = last.Format.ToString(),
            Activation = operands.Quantized?.Format.ToString(),
            Path = path,
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
            SharedBytes = resources is { } used ? used.StaticSharedBytes + LaunchedShared.Most(stream.Device, () => Multiply(last)) : null,
            Device = stream.Device.Name,
            Driver = ResultRecord.DriverOf(stream.Device),
        });
    }

    private (string Path, KernelResources? Resources) Kernel(in LinearShape shape, HopperPlan? hopper, HopperMixedPlan? mixed, HopperSplitPlan? split, SplitPlan? portableSplit, Way way)
    {
        KernelCache kernels = stream.Device.Kernels;
        if (portableSplit is { } every)
            return ($"SplitGemm{(every.Tile.IsNarrow ? " narrow" : "")}, {every.Tile.Threads / 32} warps, in {every.Parts}", kernels.Resources(SplitKernels.Get(every.Tile)));
        if (mixed is { } decoding)
            return ($"Hopper mixed N{decoding.TileRows}", kernels.Resources(HopperMixedLinear.Bf16));
        if (split is { } parts)
            return ($"Hopper split{(parts.Rows == 64 ? "" : $" N{parts.Rows}")}{(parts.Teams == 2 ? "" : " narrow")} in {parts.Parts}", kernels.Resources(HopperSplitKernels.Get(parts, false).Kernel));
        if (hopper is { } chosen)
            return ($"Hopper {chosen.Kind}{(chosen.Clusters ? " pairs" : "")}", kernels.Resources(HopperKernels.Get(chosen, false).Kernel));
        LinearDevice device = LinearDevice.Of(stream.Device);
        if (way is { Tile: null, Path: null } && HopperSkinnyPlan.IsChosen(shape, device))
            return ("Hopper skinny", kernels.Resources(HopperSkinnyKernels.Get(shape.Format, shape.Activations, shape.M, false)));
        if (way is { Tile: null, Path: null } && HopperFp8SkinnyPlan.IsChosen(shape, device))
            return (nameof(HopperFp8Skinny), kernels.Resources(HopperFp8SkinnyLinear.Get(shape.M, false)));
        if (way is { Tile: null, Path: null } && HopperSweepPlan.IfChosen(shape, device) is not null)
            return (nameof(HopperSweep), kernels.Resources(HopperSweepKernels.Get(shape.Format, shape.Activations, shape.M, false)));
        if (shape.Activations is not null)
        {
            LinearPlan streamed = LinearPlan.ChooseAccurate(shape, device, way.Tile is null ? null : LinearPath.Gemm, way.Decoding, way.Tile);
            if (streamed.Tile is { } tile)
                return ($"{streamed.Path} {tile} {streamed.Decoding}", kernels.Resources(CodeKernels.Get(streamed.Decoding, tile)));
            if (streamed.ArrangesInputs)
                return (nameof(SkinnyArranging), kernels.Resources(SkinnyKernels.GetArranging(shape.Format, shape.Activations, shape.M, false)));
            return (streamed.Path.ToString(), streamed.Path == LinearPath.SkinnyGemm ? kernels.Resources(SkinnyKernels.Get(shape.Format, shape.Activations, shape.M, false)) : null);
        }
        LinearPlan plan = LinearPlan.Choose(shape, device, way.Tile is null ? way.Path : LinearPath.Gemm, tile: way.Tile);
        if (plan.Split is { } portable)
            return ($"{plan.Path}{(portable.Tile.IsNarrow ? " narrow" : "")} in {portable.Parts}", kernels.Resources(SplitKernels.Get(portable.Tile)));
        if (plan.ArrangesInputs)
            return (nameof(SkinnyArranging), kernels.Resources(SkinnyKernels.GetArranging(shape.Format, null, shape.M, false)));
        return (plan.Tile is { } used ? $"{plan.Path} {used}" : plan.Path.ToString(), kernels.Resources(LinearKernels.Get(plan, shape.Format, shape.M, false, false)));
    }

    private void Add(ResultRecord r)
    {
        Console.Error.WriteLine($"{r.Format + (r.Activation is null ? "" : "+" + r.Activation),-20} {r.Path,-22}{(r.Name == ReportGemm.Quantising ? " and quantising" : "")} M={r.M,-4} {r.K,6}×{r.N,-6} {r.Us,9:F2} µs {r.Tflops,6:F1} TFLOPS {r.Gbps,6:F0} GB/s, cuBLAS BF16 {r.CublasUs,9:F2} µs ({r.CublasRatio:F2}×), error {r.RelError:E1}, {r.Registers} registers, {r.LocalBytes} local, {r.SharedBytes} shared");
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
