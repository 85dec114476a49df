using System.Globalization;
using System.Text;
using GpuKit.Ilgpu.Tests.Fuzzing;
using GpuKit.Ilgpu.Tests.Kernels;
using GpuKit.Ilgpu.Tests.Models;
using GpuKit.Ilgpu.Tests.Ops;

namespace GpuKit.Ilgpu.Tests.Documents;

/// <summary>The figures of docs/reliability.md, counted where the tests take them from.</summary>
internal static class ReliabilityFigures
{
    public static string Render()
    {
        int formats = WeightFormats.All.Count;
        int floods = SafetensorsMalformedTests.Floods.Count + HostileFilesTests.Floods.Count + HostileFilesTests.IndexFloods.Count + HostileFilesTests.TokenizerFloods.Count;
        var table = new StringBuilder("| what | how many |\n| --- | ---: |\n");
        Row("mutated inputs of a CI run", FuzzRun.CiInputs.Values.Sum());
        foreach ((string what, int count) in FuzzRun.CiInputs)
            Row($"… {what}", count);
        Row("named malformed safetensors files", MalformedSafetensors.All.Count);
        Row("files of the largest size, filled with what costs most: each refused in 2 s and 64 MB", floods);
        Row("wrong values of single fields of config.json, each refused by the field's name", Qwen3MoeConfigTests.WrongFields.Count + Qwen3MoeConfigTests.WrongQuantization.Count);
        Row("unsupported values in tokenizer.json, each refused by name", TokenizerFileTests.Unsupported.Count);
        Row("hostile shard names", CheckpointTests.HostileShardNames.Count);
        Row("float32 numbers spread over all bit patterns, for each of 4 conversions", SpreadValuesTests.Count);
        Row($"groups quantised and dequantised, for each of {formats} formats", QuantizedGroupsTests.Groups);
        return table.ToString();

        void Row(string what, int count) => table.Append(CultureInfo.InvariantCulture, $"| {what} | {count:N0} |\n");
    }
}
