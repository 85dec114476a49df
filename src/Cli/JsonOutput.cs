using System.CommandLine;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace GpuKit.Ilgpu.Cli;

/// <summary>Results for programs: one JSON object a line on stdout, names in snake_case.</summary>
internal static class JsonOutput
{
    private static readonly JsonSerializerOptions Format = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower) },
    };

    public static Option<bool> CreateOption() => new("--json") { Description = "Write the result as JSON." };

    public static void WriteLine<T>(T result) => Console.Out.WriteLine(JsonSerializer.Serialize(result, Format));
}
