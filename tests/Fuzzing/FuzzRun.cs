using System.Globalization;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Fuzzing;

/// <summary>
/// Hands mutated inputs to a reader. Each input has a seed of its own, made of the run's seed and its number; one that ends in anything but
/// success or a <see cref="ModelFileException"/> is saved, and the failure names seed, number and file.
/// </summary>
internal static class FuzzRun
{
    /// <summary>How many inputs every fuzz test tries; unset: what suits a CI run.</summary>
    public const string CountVariable = "GPUKIT_FUZZ_COUNT";

    /// <summary>The run's seed; unset: always the same.</summary>
    public const string SeedVariable = "GPUKIT_FUZZ_SEED";

    /// <summary>What is mutated, and how many inputs of it a CI run tries; the cheapest most.</summary>
    public static readonly IReadOnlyDictionary<string, int> CiInputs = new Dictionary<string, int>
    {
        ["safetensors headers"] = 210_000,
        ["safetensors files"] = 4_000,
        ["shard indices"] = 8_000,
        ["config.json"] = 15_000,
        ["generation_config.json"] = 25_000,
        ["tokenizer_config.json"] = 6_000,
        ["chat templates"] = 6_000,
        ["tokenizer.json, small"] = 4_000,
        ["tokenizer.json, whole"] = 250,
        ["added tokens"] = 3_000,
        ["models, config.json"] = 1_000,
        ["models, safetensors header"] = 1_000,
    };

    private const int MostMessageChars = 1_000;

    private static readonly int Seed = Number(SeedVariable) ?? 20260801;

    /// <summary>Tries inputs and returns how many of a thousand were accepted.</summary>
    /// <param name="name">What is read: one of <see cref="CiInputs"/>.</param>
    /// <param name="make">Makes an input from its random numbers.</param>
    /// <param name="accepts">Whether the reader accepted it. Throws only when the reader does what it must not.</param>
    public static int AcceptedOfThousand(string name, Func<Random, byte[]> make, Func<byte[], bool> accepts)
    {
        int inputs = Number(CountVariable) ?? CiInputs[name];
        TestContext.Current.TestOutputHelper?.WriteLine($"{name}: {inputs} inputs, seed {Seed}");
        int accepted = 0;
        for (int i = 0; i < inputs; i++)
        {
            byte[] input = make(new Random(unchecked((Seed * 1_000_003) + i)));
            try
            {
                accepted += accepts(input) ? 1 : 0;
            }
            catch (Exception e)
            {
                string path = Path.Combine(Path.GetTempPath(), $"gpukit-fuzz-{name.Replace(", ", "-", StringComparison.Ordinal).Replace(' ', '-')}-{Seed}-{i}.bin");
                File.WriteAllBytes(path, input);
                Assert.Fail($"{name}: input {i} of seed {Seed}, saved as {path}, ended in {e}");
            }
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"{accepted} accepted");
        return (int)(1_000L * accepted / inputs);
    }

    /// <summary>Whether a read succeeds. The typed exception is the other way it may end, with a message fit for a terminal.</summary>
    public static bool Reads(Action read)
    {
        try
        {
            read();
            return true;
        }
        catch (ModelFileException e)
        {
            Assert.StartsWith(e.FileName + ": ", e.Message, StringComparison.Ordinal);
            Assert.True(e.Message.Length < MostMessageChars, e.Message);
            Assert.DoesNotContain(e.Message, char.IsControl);
            return false;
        }
    }

    /// <summary>A well-formed file of the repository's model.</summary>
    public static byte[] Good(string name) => File.ReadAllBytes(Path.Combine(RepositoryFolder.TinyModel, name));

    /// <summary>Half of the inputs broken between bytes, half between JSON tokens.</summary>
    public static Func<Random, byte[]> Mutations(params IReadOnlyList<byte[]> good)
    {
        JsonMutation[] structural = [.. good.Select(g => new JsonMutation(g))];
        return random =>
        {
            int which = random.Next(good.Count);
            return random.Next(2) == 0 ? structural[which].Of(random) : ByteMutation.Of(good[which], random);
        };
    }

    private static int? Number(string variable) =>
        Environment.GetEnvironmentVariable(variable) is { Length: > 0 } text ? int.Parse(text, CultureInfo.InvariantCulture) : null;
}
