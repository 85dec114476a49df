using GpuKit.Ilgpu.Bench;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Bench;

/// <summary>Records of all ages become the tables that they should, and the command line names products and shapes.</summary>
public sealed class ReportTests
{
    private const string Device = "NVIDIA Test 1";

    [Fact]
    public void RecordsWithoutTheNewerKeysHaveNoTablesOfThem()
    {
        string text = ReportGemv.Render([ResultRecord.FromJson("""{"bench":"gemv","path":"SkinnyGemm","format":"Bf16","m":1,"n":768,"k":2048,"us":3.588,"gbps":876.7,"read_gbps":4663.4,"read_ratio":0.188,"cublas_us":7.069,"cublas_ratio":1.97,"rel_error":0.0015,"registers":128,"local_bytes":0,"device":"NVIDIA H200","driver":"13.0","commit":"25d320fd6fb6","date":"2026-11-22T18:31:19Z"}""")], []);
        Assert.Contains("| M = 1, K × N | BF16: µs | of read bandwidth |\n| --- | ---: | ---: |\n| 2048 × 768 | 3.6 | 19 % |\n", text, StringComparison.Ordinal);
        Assert.Contains("| 1, 2048 × 768 | 1.97 | 7.1 |\n", text, StringComparison.Ordinal);
        Assert.DoesNotContain("alone", text, StringComparison.Ordinal);
        Assert.DoesNotContain("uantis", text, StringComparison.Ordinal);
        Assert.DoesNotContain("Accumulators", text, StringComparison.Ordinal);
    }

    [Fact]
    public void ProductsActivationsAndAccumulatorsDoNotMix()
    {
        ResultRecord[] records =
        [
            Product("Fp8Block", us: 10) with { UsAlone = 12, RelErrorFloat32 = 1e-7 },
            Product("Fp8Block", us: 20) with { Activation = "Fp8Group128" },
            Product("Fp8Block", us: 30) with { Activation = "Fp8Group32", RelErrorFloat32 = 2e-7 },
            Product("Fp8Block", us: 40) with { Activation = "Fp8Group32", Accumulator = "Kahan", RelErrorFloat32 = 3e-8 },
            Product("Fp8Block", us: 50) with { Accumulator = "Float64", RelErrorFloat32 = 4e-8 },
            Product("Fp8Block", us: 60) with { M = 8 },
        ];
        string text = ReportGemv.Render(records, [new ResultRecord { Bench = "quantize-activations", Format = "Int4", M = 1, K = 64, Us = 2.5, Gbps = 7, Device = Device }]);
        Assert.Contains("| M = 1, K × N | FP8 block: µs | of read bandwidth |\n| --- | ---: | ---: |\n| 64 × 32 | 10.0 | 50 % |\n\n", text, StringComparison.Ordinal);
        Assert.Contains("| M = 1, K × N | FP8 block: µs overlapping | µs alone |\n| --- | ---: | ---: |\n| 64 × 32 | 10.0 | 12.0 |\n\n", text, StringComparison.Ordinal);
        Assert.Contains("| 64 × 32 | 60.0 | 50 % |\n", text, StringComparison.Ordinal);
        Assert.Contains("| 1, 64 × 32 | 20.0 | 50 % |  | 30.0 | 50 % |  |\n", text, StringComparison.Ordinal);
        Assert.Contains("| 64 × 32, FP8 block | 10.0 | 1.0E-7 |  |  | 50.0 | 4.0E-8 |\n", text, StringComparison.Ordinal);
        Assert.Contains("| 64 × 32, FP8 blocks of 32 × FP8 groups of 32 | 30.0 | 2.0E-7 | 40.0 | 3.0E-8 |  |  |\n", text, StringComparison.Ordinal);
        Assert.Contains("| M, K | INT4: µs | GB/s |\n| --- | ---: | ---: |\n| 1, 64 | 2.5 | 7.0 |\n", text, StringComparison.Ordinal);
        string chart = ReportChart.Draw(Device, records);
        Assert.Equal(1, chart.Split("50 %</text>").Length - 1);
        Assert.Equal(1, ReportTables.Summary(records, [], [], []).Split("FP8 block weights").Length - 1);
    }

    [Fact]
    public void TilesOfEveryCardHaveATableOfTheirOwn()
    {
        var record = new ResultRecord { Bench = "gemm", Name = ReportGemm.Planned, Format = "Bf16", Path = "Hopper Bf16N256", M = 64, N = 32, K = 64, Us = 10, Tflops = 3, CublasUs = 9, CublasRatio = 0.9, Device = Device };
        string text = ReportGemm.Render([record, record with { Name = ReportGemm.Portable, Path = "Gemm M128N256K64", Us = 15, Tflops = 2, CublasRatio = 0.6 }]);
        Assert.Contains("| 64, 64 × 32 | Hopper Bf16N256 | 10.0 | 3 | 9.0 | 0.90 |\n", text, StringComparison.Ordinal);
        Assert.Contains("Bf16 weights, by the kernels of every card: ", text, StringComparison.Ordinal);
        Assert.Contains("| 64, 64 × 32 | Gemm M128N256K64 | 15.0 | 2 | 9.0 | 0.60 |\n", text, StringComparison.Ordinal);
        Assert.Equal(TimedTiles.Portable, BenchOptions.Parse(["--tiles", "portable"]).Tiles);
        Assert.Throws<ArgumentException>(() => BenchOptions.Parse(["--tiles", "none"]));
    }

    [Fact]
    public void BatchesStandBesideTheirReplaysAndOutsideTheSummary()
    {
        var record = new ResultRecord { Bench = "decode", Path = "Qwen3BatchSession", Model = "synth:x", Batch = 8, Context = 128, Us = 5000, TokensPerS = 1600, DistinctExperts = 51.6, StepBytes = 13_500_000_000, FloorUs = 3000, Device = Device };
        ResultRecord[] records = [record, record with { Path = "batch replays", Us = 4900 }, record with { Path = "replays", Us = 7777 }];
        Assert.Contains("| synth:x | 128 | 8 | 1600 | 5000 | 4900 | 51.6 | 13.50 | 3000 | 60 % |\n", ReportBatch.Render(records), StringComparison.Ordinal);
        Assert.DoesNotContain("7777", ReportBatch.Render(records), StringComparison.Ordinal);
        Assert.Equal("", ReportBatch.Render([]));
        Assert.DoesNotContain("synth:x", ReportTables.Summary([], [], records, []), StringComparison.Ordinal);
        Assert.Equal([1, 4, 16], BenchOptions.Parse(["--batch", "1,4,16"]).Batches);
    }

    [Fact]
    public void ALayerOfExpertsStandsBesideItsFloor()
    {
        var record = new ResultRecord { Bench = "moe", Path = "ExpertMlp", Model = "synth:x", Format = "Fp8Block", M = 8, Us = 100, FloorUs = 54.1, DistinctExperts = 51.5, Tflops = 0.75, Device = Device };
        Assert.Contains("| synth:x | 8 | ExpertMlp | 100.0 | 54.1 | 54 % | 51.5 | 0.8 |\n", ReportMoe.Render([record]), StringComparison.Ordinal);
        Assert.Equal("", ReportMoe.Render([]));
        Assert.Equal([1, 64], BenchOptions.Parse(["--rows", "1,64"]).MoeRows);
    }

    [Fact]
    public void OfEachThingTheLatestRecordIsRendered()
    {
        using var root = new TemporaryFolder();
        string results = Path.Combine(root.Path, "docs", "results");
        Directory.CreateDirectory(Path.Combine(root.Path, "docs", "kernels"));
        foreach ((string path, string marker) in new[] { ("docs/kernels/gemv.md", "gemv"), ("docs/kernels/gemm.md", "gemm"), ("docs/kernels/moe.md", "moe"), ("docs/kernels/moe.md", "prefill"), ("docs/kernels/moe.md", "batch"), ("docs/numerics.md", "error"), ("README.md", "figures") })
            File.AppendAllText(Path.Combine(root.Path, path), $"before\n<!-- {marker} -->\nold\n<!-- /{marker} -->\nafter\n");
        ResultRecord first = Product("Bf16", us: 11) with { Date = "2026-01-01T00:00:00Z" };
        var prompt = new ResultRecord { Bench = "prefill", Path = "Qwen3Session", Model = "synth:x", M = 32, Batch = 1, Us = 5600, TokensPerS = 5766, Tflops = 12.34, Device = Device };
        IReadOnlyList<string> files = ResultRecord.Append(results,
        [
            first,
            first with { Activation = "Fp8Group128", Format = "Fp8Block", Us = 33 },
            new ResultRecord { Bench = "quantize-activations", Format = "Fp8Group128", M = 1, K = 64, Us = 44, Gbps = 1, Device = Device },
            prompt,
            prompt with { M = 2048, Us = 66_600, TokensPerS = 30_750 },
            prompt with { Name = "FlashAttention.Run", Path = "kernel", Launches = 48, Us = 77 },
        ]);
        Assert.Equal(["gemv-test1.jsonl", "quantize-activations-test1.jsonl", "prefill-test1.jsonl"], files.Select(f => Path.GetFileName(f)));
        Assert.DoesNotContain("activation", File.ReadLines(files[0]).First(), StringComparison.Ordinal);
        Assert.Equal(first, ResultRecord.FromJson(File.ReadLines(files[0]).First()));
        ResultRecord.Append(results, [first with { Date = "2026-01-02T00:00:00Z", Us = 22, Path = "Gemv" }]);
        Assert.Equal(1, Report.Run(root.Path, check: true));
        Assert.Equal(0, Report.Run(root.Path, check: false));
        Assert.Equal(0, Report.Run(root.Path, check: true));
        string text = File.ReadAllText(Path.Combine(root.Path, "docs", "kernels", "gemv.md"));
        Assert.StartsWith("before\n", text, StringComparison.Ordinal);
        Assert.EndsWith("<!-- /gemv -->\nafter\n", text, StringComparison.Ordinal);
        Assert.Contains("| 64 × 32 | 22.0 |", text, StringComparison.Ordinal);
        Assert.DoesNotContain("11.0", text, StringComparison.Ordinal);
        Assert.Contains("| 1, 64 × 32 | 33.0 |", text, StringComparison.Ordinal);
        Assert.Contains("| 1, 64 | 44.0 |", text, StringComparison.Ordinal);
        string prefill = File.ReadAllText(Path.Combine(root.Path, "docs", "kernels", "moe.md"));
        Assert.Contains("| synth:x | 32 | 5.6 | 5766 | 12.3 |\n| synth:x | 2048 | 66.6 | 30750 | 12.3 |\n\n", prefill, StringComparison.Ordinal);
    }

    [Fact]
    public void OptionsNameProductsShapesAndRows()
    {
        BenchOptions options = BenchOptions.Parse(["--formats", "bf16,fp8block+fp8group32,BF16", "--shapes", "4096x14336,64x32", "--rows", "1,4"]);
        Assert.Equal(["Bf16", "Fp8Block+Fp8Group32"], options.Products.Select(p => p.Name));
        Assert.Equal([(4096, 14336), (64, 32)], options.Shapes);
        Assert.Equal([1, 4], options.Rows);
        Assert.Equal([32, 7], BenchOptions.Parse(["--prompts", "32,7,32"]).Prompts);
        BenchOptions all = BenchOptions.Parse([]);
        Assert.Equal(WeightFormats.All.Count + ActivationFormats.All.Count, all.Products.Count);
        Assert.Equal(12, all.Shapes.Count);
        Assert.Equal("elsewhere", BenchOptions.Parse(["--model", "elsewhere"]).Model);
    }

    [Theory]
    [InlineData("--formats", "fp8")]
    [InlineData("--formats", "")]
    [InlineData("--shapes", "64")]
    [InlineData("--shapes", "64x32x1")]
    [InlineData("--shapes", "-64x32")]
    [InlineData("--shapes", "72x32")]
    [InlineData("--shapes", "64x33")]
    [InlineData("--shapes", "0x32")]
    [InlineData("--rows", "0")]
    [InlineData("--prompts", "0")]
    public void WrongOptionsAreRefused(string option, string value) =>
        Assert.Contains(option, Assert.Throws<ArgumentException>(() => BenchOptions.Parse([option, value])).Message, StringComparison.Ordinal);

    private static ResultRecord Product(string format, double us) => new() { Bench = "gemv", Format = format, Path = "SkinnyGemm", M = 1, N = 32, K = 64, Us = us, ReadGbps = 4000, ReadRatio = 0.5, Device = Device };
}
