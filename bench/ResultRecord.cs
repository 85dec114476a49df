using System.Globalization;
using System.Reflection;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace GpuKit.Ilgpu.Bench;

/// <summary>One measured figure: a line of <c>docs/results/&lt;bench&gt;-&lt;device&gt;.jsonl</c>. What does not apply is null and left out.</summary>
internal sealed record ResultRecord
{
    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    public required string Bench { get; init; }

    public string? Name { get; init; }

    public string? Path { get; init; }

    public string? Model { get; init; }

    public string? Format { get; init; }

    public int? M { get; init; }

    public int? N { get; init; }

    public int? K { get; init; }

    public int? Batch { get; init; }

    /// <summary>How keys and values were stored; null for BF16.</summary>
    public string? KvCache { get; init; }

    /// <summary>Launches of a kernel in one step.</summary>
    public int? Launches { get; init; }

    /// <summary>Positions of the KV cache that are filled at the end.</summary>
    public int? Context { get; init; }

    /// <summary>Median, in microseconds.</summary>
    public double? Us { get; init; }

    /// <summary>Median when no launch of the graph overlaps another.</summary>
    public double? UsAlone { get; init; }

    public double? UsMin { get; init; }

    public double? UsMax { get; init; }

    /// <summary>A token of the first thousand of a long run, of the last, and at the last one's positions in a sequence that begins there.</summary>
    public double? UsFirst { get; init; }

    public double? UsLast { get; init; }

    public double? UsFresh { get; init; }

    public double? Gbps { get; init; }

    /// <summary>10¹² operations a second, a multiplication and an addition two.</summary>
    public double? Tflops { get; init; }

    /// <summary>Read bandwidth measured in the same run.</summary>
    public double? ReadGbps { get; init; }

    public double? ReadRatio { get; init; }

    public double? CublasUs { get; init; }

    /// <summary>cuBLAS's time over ours: above 1 we are faster.</summary>
    public double? CublasRatio { get; init; }

    /// <summary>Against the dequantised operands in double precision.</summary>
    public double? RelError { get; init; }

    /// <summary>The same with float32 output, where the sums' own errors show.</summary>
    public double? RelErrorFloat32 { get; init; }

    public double? RelErrorUnquantised { get; init; }

    /// <summary>Format of the activations; of a product in BF16 null.</summary>
    public string? Activation { get; init; }

    /// <summary>How products are added; null for float32.</summary>
    public string? Accumulator { get; init; }

    /// <summary>Where the weights of an error's product are from.</summary>
    public string? Distribution { get; init; }

    public long? WeightBytes { get; init; }

    /// <summary>Answers of a model that are exact, of <see cref="Total"/>.</summary>
    public int? Exact { get; init; }

    public int? Total { get; init; }

    public double? CosineLeast { get; init; }

    public double? CosineMean { get; init; }

    public double? TopOne { get; init; }

    public int? Registers { get; init; }

    public int? LocalBytes { get; init; }

    public int? SharedBytes { get; init; }

    public long? AllocatedBytes { get; init; }

    public double? TokensPerS { get; init; }

    /// <summary>Different experts a layer that the sequences of a batch chose, on average.</summary>
    public double? DistinctExperts { get; init; }

    /// <summary>Bytes that a step must read: weights but for those of experts that nobody chose, keys and values.</summary>
    public long? StepBytes { get; init; }

    /// <summary>How long reading them takes at the read bandwidth of the same run.</summary>
    public double? FloorUs { get; init; }

    /// <summary>99th percentile.</summary>
    public double? UsP99 { get; init; }

    /// <summary>How long a soak ran after its warm-up; the median of loads.</summary>
    public double? Seconds { get; init; }

    public int? Cancelled { get; init; }

    public long? DeviceBytes { get; init; }

    /// <summary>The most that device bytes were above those after the warm-up.</summary>
    public long? DeviceBytesGrowth { get; init; }

    /// <summary>The most memory of the host that the process had resident until then, pages of mapped files included.</summary>
    public long? PeakResidentBytes { get; init; }

    public long? HeapBytes { get; init; }

    /// <summary>Slope of the managed heap over the soak times its length.</summary>
    public long? HeapBytesGrowth { get; init; }

    public required string Device { get; init; }

    public string? Driver { get; init; }

    public string Commit { get; init; } = BuiltCommit();

    public string Date { get; init; } = DateTime.UtcNow.ToString("yyyy-MM-ddTHH:mm:ssZ", CultureInfo.InvariantCulture);

    public string ToJson() => JsonSerializer.Serialize(this, Json);

    /// <exception cref="IOException">The line is no result.</exception>
    public static ResultRecord FromJson(string line)
    {
        try
        {
            return JsonSerializer.Deserialize<ResultRecord>(line, Json) ?? throw new IOException($"No result: {line}");
        }
        catch (JsonException e)
        {
            throw new IOException($"No result: {line}: {e.Message}", e);
        }
    }

    /// <summary>A cache's format as a record has it.</summary>
    public static string? NameOf(KvCacheFormat format) => format == KvCacheFormat.Bf16 ? null : format.ToString().ToLowerInvariant();

    /// <summary>The driver's CUDA version, or null on the CPU.</summary>
    public static string? DriverOf(GpuDevice device) => device.IsCuda ? DeviceCatalog.DriverVersion?.ToString() : null;

    /// <summary>Appends to the file of each record's benchmark and device, and returns the files' paths.</summary>
    public static IReadOnlyList<string> Append(string folder, IReadOnlyList<ResultRecord> records)
    {
        Directory.CreateDirectory(folder);
        var files = new List<string>();
        foreach (IGrouping<string, ResultRecord> file in records.GroupBy(r => System.IO.Path.Combine(folder, $"{r.Bench}-{ShortName(r.Device)}.jsonl")))
        {
            File.AppendAllLines(file.Key, file.Select(r => r.ToJson()));
            files.Add(file.Key);
        }
        return files;
    }

    // "NVIDIA GeForce RTX 4090" → "rtx4090", "NVIDIA H100 80GB HBM3" → "h100", "CPU (2 × 2 threads, …)" → "cpu".
    public static string ShortName(string device) => string.Concat(
        device.Split('(')[0].Replace("NVIDIA", "", StringComparison.Ordinal).Replace("GeForce", "", StringComparison.Ordinal).Split(' ')
            .TakeWhile(word => !word.EndsWith("GB", StringComparison.Ordinal)).SelectMany(word => word.ToLowerInvariant().Where(char.IsAsciiLetterOrDigit)));

    // The SDK puts the commit behind the version: "0.1.0+<commit>".
    private static string BuiltCommit()
    {
        string version = typeof(ResultRecord).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "";
        int plus = version.IndexOf('+', StringComparison.Ordinal);
        return plus < 0 ? "unknown" : version[(plus + 1)..Math.Min(version.Length, plus + 13)];
    }
}
