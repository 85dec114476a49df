using System.Text;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>generation_config.json: defaults, ranges, and the union of stop ids.</summary>
public sealed class GenerationConfigTests
{
    [Fact]
    public void The_tiny_file_is_read()
    {
        var config = GenerationConfig.Load(RepositoryFolder.TinyModel);
        Assert.Equal((true, 0.7, 20, 0.8, 0.0, 1.0), (config.DoSample, config.Temperature, config.TopK, config.TopP, config.MinP, config.RepetitionPenalty));
        Assert.Equal([2047, 2045], config.EosTokenIds);
    }

    [Fact]
    public void Without_a_file_the_defaults_hold()
    {
        using var folder = new TemporaryFolder();
        var config = GenerationConfig.Load(folder.Path);
        Assert.Equal((false, 1.0, 50, 1.0, 0.0, 1.0), (config.DoSample, config.Temperature, config.TopK, config.TopP, config.MinP, config.RepetitionPenalty));
        Assert.Empty(config.EosTokenIds);
    }

    [Fact]
    public void Stop_ids_are_those_of_both_files()
    {
        var model = Qwen3MoeConfig.Load(RepositoryFolder.TinyModel) with { EosTokenIds = [3, 1] };
        Assert.Equal([3, 1, 2], Parse("{\"eos_token_id\":[1,2]}").StopTokenIds(model));
        Assert.Equal([3, 1, 9], Parse("{\"eos_token_id\":9}").StopTokenIds(model));
    }

    [Theory]
    [InlineData("temperature", "-0.1")]
    [InlineData("temperature", "1e999")]
    [InlineData("temperature", "\"1\"")]
    [InlineData("top_k", "-1")]
    [InlineData("top_k", "1.5")]
    [InlineData("top_p", "0")]
    [InlineData("top_p", "1.01")]
    [InlineData("min_p", "-1")]
    [InlineData("min_p", "2")]
    [InlineData("repetition_penalty", "0")]
    [InlineData("repetition_penalty", "[]")]
    [InlineData("do_sample", "1")]
    [InlineData("eos_token_id", "-1")]
    [InlineData("eos_token_id", "[\"a\"]")]
    public void A_wrong_field_is_refused_by_name(string field, string value)
    {
        var refused = Assert.Throws<ModelFileException>(() => Parse($"{{\"{field}\":{value}}}"));
        Assert.StartsWith($"generation_config.json: '{field}'", refused.Message, StringComparison.Ordinal);
    }

    private static GenerationConfig Parse(string json) => GenerationConfig.Parse(Encoding.UTF8.GetBytes(json));
}
