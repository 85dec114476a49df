using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Qwen3;

/// <summary>The model of the repository against what PyTorch computed from the same weights.</summary>
[Collection(ModelDevices.Collection)]
public sealed class TinyModelTests(ModelDevices devices)
{
    public static TheoryData<TestDevice, bool> Cases => ModelDevices.With([false, true]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Logits_routers_and_greedy_continuations_are_the_references(TestDevice device, bool toBf16)
    {
        LanguageModel tiny = devices.Tiny(device);
        using Qwen3Moe? own = toBf16 ? ModelDevices.LoadTiny(tiny.Network.Device, new LoadOptions { DequantizeToBf16 = true }) : null;
        using var session = new Qwen3Session(own ?? tiny.Network, 128);
        using var reference = SafetensorsFile.Open(Path.Combine(RepositoryFolder.TinyModel, "reference.safetensors"));
        string[] prompts = [.. reference.Tensors.Keys.Where(k => k.EndsWith(".input_ids", StringComparison.Ordinal)).Select(k => k.Split('.')[0]).Order(StringComparer.Ordinal)];
        Assert.Equal(6, prompts.Length);
        int continued = 0;
        foreach (string prompt in prompts)
        {
            int[] ids = Read<int>(reference, prompt + ".input_ids");
            session.Truncate(0);
            CheckPrefill(ModelRun.Prefill(session, ids), reference, prompt, session.Model.Config);
            if (!reference.Tensors.ContainsKey(prompt + ".greedy"))
                continue;
            int[] greedy = Read<int>(reference, prompt + ".greedy");
            Assert.Equal(greedy, ModelRun.Continue(session, ids, greedy.Length));
            continued++;
        }
        Assert.Equal(4, continued);
    }

    private static void CheckPrefill(ModelRun run, SafetensorsFile reference, string prompt, Qwen3MoeConfig config)
    {
        double[] expected = Array.ConvertAll(Read<float>(reference, prompt + ".logits"), v => (double)v);
        double cosine = ModelRun.Cosine([.. run.Logits.SelectMany(row => row)], expected);
        int agreed = 0, chosen = 0, same = run.Top1.Zip(expected.Chunk(config.VocabSize), (id, row) => row[id] == row.Max() ? 1 : 0).Sum();
        Assert.Equal(config.Layers, run.Routers.Count);
        foreach ((int layer, float[][] rows) in run.Routers)
        {
            float[][] wanted = [.. Read<float>(reference, $"{prompt}.router{layer}.logits").Chunk(config.Experts)];
            Assert.Equal(wanted.Length, rows.Length);
            agreed += rows.Zip(wanted, (a, b) => TopK(a, config.ExpertsPerToken).Intersect(TopK(b, config.ExpertsPerToken)).Count()).Sum();
            chosen += rows.Length * config.ExpertsPerToken;
        }
        TestContext.Current.TestOutputHelper?.WriteLine($"{prompt}: {run.Logits.Length} tokens, cosine {cosine:F6}, top-1 {same}, router choices {agreed} of {chosen}");
        Assert.True(cosine >= 0.999, $"{prompt}: cosine {cosine:F6}.");
        Assert.True(agreed >= 0.98 * chosen, $"{prompt}: {agreed} of {chosen} router choices agree.");
    }

    private static IEnumerable<int> TopK(float[] logits, int k) =>
        Enumerable.Range(0, logits.Length).OrderByDescending(e => logits[e]).Take(k);

    private static T[] Read<T>(SafetensorsFile file, string name)
        where T : unmanaged => MemoryMarshal.Cast<byte, T>(file.Bytes(file.Tensors[name])).ToArray();
}
