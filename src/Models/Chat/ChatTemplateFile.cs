using System.Text;
using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>Where a folder keeps its chat template.</summary>
internal static class ChatTemplateFile
{
    public const string ConfigFile = "tokenizer_config.json";
    public const string JinjaFile = "chat_template.jinja";

    /// <summary>The template's text and the file it stands in; null when the folder has none.</summary>
    public static (string Text, string FileName)? Read(ModelFolder folder)
    {
        // The newer place wins, as it does for Hugging Face.
        if (folder.Has(JinjaFile))
        {
            return (ReadJinja(folder), JinjaFile);
        }

        string? text = folder.Has(ConfigFile) ? ModelJson.Read(folder, ConfigFile, ReadConfig) : null;
        return text is null ? null : (text, ConfigFile);
    }

    private static string ReadJinja(ModelFolder folder)
    {
        using MappedFile file = folder.Map(JinjaFile, ModelJson.MaxBytes);
        try
        {
            return new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(file.Span(0, (int)file.Length));
        }
        catch (DecoderFallbackException e)
        {
            throw new ModelFileException(JinjaFile, $"is not UTF-8: {e.Message}", e);
        }
    }

    private static string? ReadConfig(JsonFields config)
    {
        const string needed = "a string, or a list of {name, template} with one named default,";
        if (!config.TryGet("chat_template", out JsonElement value))
        {
            return null;
        }

        if (value.ValueKind == JsonValueKind.String)
        {
            return value.GetString();
        }

        if (value.ValueKind != JsonValueKind.Array)
        {
            throw config.Wrong("chat_template", value, needed);
        }

        foreach (JsonElement item in value.EnumerateArray().Where(i => i.ValueKind == JsonValueKind.Object))
        {
            var named = new JsonFields(config.FileName, "chat_template.", item);
            if (named.Text("name") == "default")
            {
                return named.Text("template") ?? throw named.Missing("template", "a string");
            }
        }

        throw config.Wrong("chat_template", value, needed);
    }
}
