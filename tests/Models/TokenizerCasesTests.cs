using System.Text.Json;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>Every id of the case files, which the reference implementation computed.</summary>
public sealed class TokenizerCasesTests
{
    internal const string Qwen3Variable = "GPUKIT_QWEN3_TOKENIZER";

    private sealed record Case(string Text, int[] Ids);

    [Fact]
    public void The_tiny_tokenizer_gives_every_id() => CheckAll(RepositoryFolder.TinyModel);

    [Fact]
    public void The_Qwen3_tokenizer_gives_every_id() => CheckAll(Qwen3Folder());

    internal static string Qwen3Folder()
    {
        string? folder = Environment.GetEnvironmentVariable(Qwen3Variable);
        if (string.IsNullOrEmpty(folder))
        {
            Assert.Skip($"{Qwen3Variable} names no folder with the Qwen3 tokenizer, which is too large for the repository");
        }

        return folder;
    }

    private static void CheckAll(string folder)
    {
        var tokenizer = Tokenizer.Load(folder);
        Case[] cases = JsonSerializer.Deserialize<Case[]>(
            File.ReadAllBytes(Path.Combine(folder, "tokenizer_cases.json")), JsonSerializerOptions.Web)!;
        Assert.True(cases.Length >= 70);
        foreach ((string text, int[] ids) in cases)
        {
            Assert.True(ids.SequenceEqual(tokenizer.Encode(text)), $"\"{text}\": {string.Join(' ', tokenizer.Encode(text))} instead of {string.Join(' ', ids)}");

            // Decoding gives the text as it was normalised.
            Assert.Equal(text.Normalize(), tokenizer.Decode(ids, skipSpecial: false));
            StreamingDecoder streaming = tokenizer.CreateStreamingDecoder(skipSpecial: false);
            Assert.Equal(text.Normalize(), string.Concat(ids.Select(streaming.Append)) + streaming.Flush());
        }
    }
}
