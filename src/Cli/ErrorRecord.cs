using System.Globalization;
using System.Reflection;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli;

/// <summary>A measured error as a line of <c>error-&lt;device&gt;.jsonl</c>, with the keys of docs/results. What does not apply is left out.</summary>
internal sealed record ErrorRecord
{
    private static readonly JsonSerializerOptions Json = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    public string Bench { get; } = "error";
    public string? Model { get; init; }
    public required string Format { get; init; }
    public string? Activation { get; init; }
    public string? Accumulator { get; init; }
    public string? Distribution { get; init; }
    public int? M { get; init; }
    public int? N { get; init; }
    public int? K { get; init; }
    public double? RelError { get; init; }
    public double? Cosine { get; init; }
    public double? Worst { get; init; }
    public double? RelErrorUnquantised { get; init; }
    public double? CosineUnquantised { get; init; }
    public double? WorstUnquantised { get; init; }
    public long? WeightBytes { get; init; }
    public int? Exact { get; init; }
    public int? Total { get; init; }
    public double? CosineLeast { get; init; }
    public double? CosineMean { get; init; }
    public double? TopOne { get; init; }
    public int? Seed { get; init; }
    public required string Device { get; init; }
    public string? Driver { get; init; }
    public string Commit { get; } = BuiltCommit();
    public string Date { get; } = DateTime.UtcNow.ToString("yyyy-MM-ddTHH:mm:ssZ", CultureInfo.InvariantCulture);

    public static ErrorRecord Of(ProductError error, GpuDevice device, int seed) => Of(error.Case.Weights, device) with
    {
        Model = error.Model,
        Activation = error.Case.ActivationName,
        Accumulator = error.Case.AccumulatorName,
        Distribution = error.Distribution,
        M = error.M,
        N = error.N,
        K = error.K,
        RelError = error.Dequantized.Relative,
        Cosine = error.Dequantized.Cosine,
        Worst = error.Dequantized.Worst,
        RelErrorUnquantised = error.Unquantized.Relative,
        CosineUnquantised = error.Unquantized.Cosine,
        WorstUnquantised = error.Unquantized.Worst,
        Seed = seed,
    };

    public static ErrorRecord Of(ModelFormatResult result, string model, GpuDevice device) => Of(result.Format, device) with
    {
        Model = model,
        WeightBytes = result.WeightBytes,
        Exact = result.Verses?.ExactCount,
        Total = result.Verses?.Verses.Count,
        CosineLeast = result.LeastCosine,
        CosineMean = result.MeanCosine,
        TopOne = result.TopOneAgreement,
    };

    /// <summary>Appends to the file of the first record's device, and returns its path.</summary>
    public static string Append(string folder, IReadOnlyList<ErrorRecord> records)
    {
        Directory.CreateDirectory(folder);
        string file = Path.Combine(folder, $"error-{ShortName(records[0].Device)}.jsonl");
        File.AppendAllLines(file, records.Select(r => JsonSerializer.Serialize(r, Json)));
        return file;
    }

    private static ErrorRecord Of(CheckpointFormat format, GpuDevice device) => new()
    {
        Format = format.Name,
        Device = device.Name,
        Driver = device.IsCuda ? DeviceCatalog.DriverVersion?.ToString() : null,
    };

    // "NVIDIA GeForce RTX 4090" → "rtx4090", "CPU (2 × 2 threads, …)" → "cpu", as the benchmarks name their files.
    private static string ShortName(string device) => new([.. device.Split('(')[0]
        .Replace("NVIDIA", "", StringComparison.Ordinal).Replace("GeForce", "", StringComparison.Ordinal).ToLowerInvariant().Where(char.IsAsciiLetterOrDigit)]);

    // The SDK puts the commit behind the version: "0.1.0+<commit>".
    private static string BuiltCommit()
    {
        string version = typeof(ErrorRecord).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "";
        int plus = version.IndexOf('+', StringComparison.Ordinal);
        return plus < 0 ? "unknown" : version[(plus + 1)..Math.Min(version.Length, plus + 13)];
    }
}
