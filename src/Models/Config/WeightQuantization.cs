using System.Text.Json.Nodes;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// How the linear layers of a checkpoint are quantised: <c>quantization_config</c> of <c>config.json</c>. One of
/// <see cref="Fp8Quantization"/>, <see cref="Fp8TwoTermQuantization"/>, <see cref="Nvfp4Quantization"/> and <see cref="Int4Quantization"/>.
/// </summary>
/// <param name="ModulesToNotConvert">Module names whose weights stay unquantised, for example <c>lm_head</c>.</param>
public abstract record WeightQuantization(IReadOnlyList<string> ModulesToNotConvert)
{
    // FP8 files are everybody's; the others have no common spelling, so they say whose they are.
    private const string Fp8Method = "fp8", OwnMethod = "gpukit", Nvfp4 = "nvfp4", Int4 = "int4";

    /// <summary>The weight format that quantised tensors have.</summary>
    public abstract WeightFormat Format { get; }

    /// <summary>The part of a matrix that shares a scale; null in NVFP4, which has its own.</summary>
    /// <exception cref="ArgumentException">The kernels have no such block.</exception>
    public abstract ScaleBlock? Block { get; }

    internal static WeightQuantization Read(JsonFields fields)
    {
        const string needed = $"\"{Fp8Method}\" or \"{OwnMethod}\"", formats = $"\"{Nvfp4}\", \"{Int4}\" or \"{Fp8TwoTermQuantization.Name}\"";
        IReadOnlyList<string> kept = fields.Texts("modules_to_not_convert");
        return fields.Text("quant_method") switch
        {
            Fp8Method => Fp8Quantization.Read(fields, kept),
            OwnMethod => fields.Text("format") switch
            {
                Nvfp4 => Nvfp4Quantization.Read(fields, kept),
                Int4 => Int4Quantization.Read(fields, kept),
                Fp8TwoTermQuantization.Name => Fp8TwoTermQuantization.Read(fields, kept),
                null => throw fields.Missing("format", formats),
                string other => throw fields.Unsupported("format", $"\"{other}\"", $"{formats} is"),
            },
            null => throw fields.Missing("quant_method", needed),
            string other => throw fields.Unsupported("quant_method", $"\"{other}\"", $"{needed} is"),
        };
    }

    /// <summary>The section of <c>config.json</c>, which <see cref="Read"/> reads back.</summary>
    internal abstract JsonObject ToJson();

    private protected JsonObject ToJson(string format, JsonObject fields)
    {
        var section = new JsonObject { ["quant_method"] = OwnMethod, ["format"] = format };
        foreach ((string key, JsonNode? value) in fields)
            section[key] = value?.DeepClone();
        section["modules_to_not_convert"] = KeptModules();
        return section;
    }

    private protected JsonArray KeptModules() => [.. ModulesToNotConvert.Select(m => (JsonNode)m)];
}
