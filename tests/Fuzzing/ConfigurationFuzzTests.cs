using System.Text;
using System.Text.Json;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Fuzzing;

/// <summary>The small JSON files of a model folder and its chat template, broken at random.</summary>
[Collection(nameof(Alone))]
public sealed class ConfigurationFuzzTests
{
    [Fact]
    public void Accepted_configurations_say_what_their_text_says()
    {
        byte[] good = FuzzRun.Good("config.json");
        byte[] fewer = Encoding.UTF8.GetBytes(JsonSerializer.Serialize(JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(good)!
            .Where(f => f.Key is not ("architectures" or "transformers_version" or "initializer_range" or "quantization_config")).ToDictionary()));
        int accepted = FuzzRun.AcceptedOfThousand("config.json", FuzzRun.Mutations(good, fewer), json =>
        {
            Qwen3MoeConfig? config = null;
            bool read = FuzzRun.Reads(() => config = Qwen3MoeConfig.Parse(json));
            if (config is not null)
                ConfigRules.Check(json, config);
            return read;
        });
        Assert.InRange(accepted, 20, 900);
    }

    [Fact]
    public void Generation_configurations_are_accepted_exactly_when_the_rules_are_kept()
    {
        byte[] all = """{"do_sample":true,"temperature":0.7,"top_k":20,"top_p":0.95,"min_p":0.05,"repetition_penalty":1.1,"eos_token_id":[5,7]}"""u8.ToArray();
        int accepted = FuzzRun.AcceptedOfThousand("generation_config.json", FuzzRun.Mutations(FuzzRun.Good("generation_config.json"), all), json =>
        {
            GenerationConfig? config = null;
            bool read = FuzzRun.Reads(() => config = GenerationConfig.Parse(json));
            Assert.Equal(ConfigRules.Text(ConfigRules.Generation(json)), ConfigRules.Text(config));
            return read;
        });
        Assert.InRange(accepted, 20, 900);
    }

    [Fact]
    public void Chat_templates_render_or_are_refused()
    {
        // Whole templates of the family, and pieces of them: what the recogniser looks for, in any order.
        byte[] qwen3 = Template(File.ReadAllText(Path.Combine(RepositoryFolder.TestData("qwen3-chat"), "tokenizer_config.json")));
        byte[] tiny = Template(Encoding.UTF8.GetString(FuzzRun.Good("tokenizer_config.json")));
        ChatMessage[] messages = [new(ChatRole.System, "s"), new(ChatRole.User, "<|im_end|>"), new(ChatRole.Assistant, "<think>a</think>b"), new(ChatRole.User, "\ud800")];
        int accepted = FuzzRun.AcceptedOfThousand("chat templates", random => ByteMutation.Of(random.Next(2) == 0 ? qwen3 : tiny, random), text =>
        {
            ChatTemplate? template = null;
            bool read = FuzzRun.Reads(() => template = ChatTemplate.Recognize(Encoding.UTF8.GetString(text)));
            Assert.NotEqual("", template?.Render(messages));
            return read;
        });
        Assert.InRange(accepted, 100, 1_000);
    }

    [Fact]
    public void Tokenizer_configurations_are_read_or_refused()
    {
        using var folder = new TemporaryFolder();
        byte[] list = """{"chat_template":[{"name":"tool_use","template":"x"},{"name":"default","template":"<|im_start|><|im_end|>"}],"bos_token":null}"""u8.ToArray();
        int accepted = FuzzRun.AcceptedOfThousand("tokenizer_config.json", FuzzRun.Mutations(FuzzRun.Good("tokenizer_config.json"), list), json =>
        {
            folder.Write("tokenizer_config.json", json);
            return FuzzRun.Reads(() => ChatTemplate.Load(folder.Path));
        });
        Assert.InRange(accepted, 20, 900);
    }

    private static byte[] Template(string config) => Encoding.UTF8.GetBytes(JsonDocument.Parse(config).RootElement.GetProperty("chat_template").GetString()!);
}
