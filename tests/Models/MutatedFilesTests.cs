using System.Text;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>JSON files of a model folder, broken at random: they are read, or refused with the one typed exception.</summary>
[Collection(nameof(Alone))]
public sealed class MutatedFilesTests
{
    private const int Seed = 20260802;

    public static TheoryData<string, string> Floods => new()
    {
        { "{", "\"{0}\":0," },
        { "{\"mlp_only_layers\":[", "0," },
        { "{\"rope_scaling\":{", "\"{0}\":{{}}," },
        { "{\"model_type\":\"", "qwen3" },
        { "", "[" },
    };

    [Fact]
    public void Mutated_configurations_are_read_or_refused()
    {
        byte[] good = Good("config.json");
        Run(good, 5_000, bytes => Qwen3MoeConfig.Parse(bytes));
        Run(Good("generation_config.json"), 5_000, bytes => GenerationConfig.Parse(bytes));
    }

    [Fact]
    public void Mutated_tokenizers_are_read_or_refused()
    {
        using var folder = new TemporaryFolder();
        Run(Good("tokenizer.json"), 200, bytes =>
        {
            folder.Write("tokenizer.json", bytes);
            Tokenizer.Load(folder.Path).Encode("In the beginning");
        });
        folder.Write("tokenizer.json", Good("tokenizer.json"));
        Run(Good("tokenizer_config.json"), 500, bytes =>
        {
            folder.Write("tokenizer_config.json", bytes);
            ChatTemplate.Load(folder.Path);
        });
    }

    [Fact]
    public void Mutated_indices_are_read_or_refused()
    {
        using var folder = new TemporaryFolder();
        SafetensorsWriter.Write(folder.File("a.safetensors"), [("x", TensorType.U8, [1], [1]), ("y", TensorType.U8, [1], [2])]);
        Run("""{"metadata":{"total_size":2},"weight_map":{"x":"a.safetensors","y":"a.safetensors"}}"""u8.ToArray(), 2_000, bytes =>
        {
            folder.Write("model.safetensors.index.json", bytes);
            Checkpoint.Open(folder.Path).Dispose();
        });
    }

    [Theory]
    [MemberData(nameof(Floods))]
    public void A_flooded_configuration_is_refused_soon_and_without_much_memory(string start, string item)
    {
        var text = new StringBuilder(start);
        for (int i = 0; text.Length < 1_990_000; i++)
        {
            text.AppendFormat(System.Globalization.CultureInfo.InvariantCulture, item, i);
        }

        string closed = text.ToString().TrimEnd(',') + (start.EndsWith('[') ? "]}" : start.EndsWith('"') ? "\"}" : start.Contains(':', StringComparison.Ordinal) ? "}}" : "}");
        byte[] json = Encoding.UTF8.GetBytes(closed);
        HostileInput.IsRefusedCheaply(() => Qwen3MoeConfig.Parse(json));
    }

    private static byte[] Good(string name) => File.ReadAllBytes(Path.Combine(RepositoryFolder.TinyModel, name));

    private static void Run(byte[] good, int count, Action<byte[]> read)
    {
        TestContext.Current.TestOutputHelper?.WriteLine($"seed {Seed}");
        var random = new Random(Seed);
        for (int i = 0; i < count; i++)
        {
            try
            {
                read(ByteMutation.Of(good, random));
            }
            catch (ModelFileException e)
            {
                Assert.StartsWith(e.FileName + ": ", e.Message, StringComparison.Ordinal);
            }
        }
    }
}
