using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Quantization;

/// <summary>The model of the repository in other formats still recites, and stays as near to its reference as the format allows.</summary>
[Collection(ModelDevices.Collection)]
public sealed class QuantizedTinyModelTests(ModelDevices devices)
{
    // Measured by 'gpukit error' with a margin; the source is FP8, so both losses are in them.
    public static TheoryData<TestDevice, string, double> Bars => new()
    {
        { TestDevice.Cpu, "bf16", 0.999 },
        { TestDevice.Cpu, "nvfp4", 0.98 },
        { TestDevice.Cpu, "int4", 0.97 },
        { TestDevice.Cpu, "int4-zero", 0.97 },
        { TestDevice.Cpu, "fp8-two-term", 0.999 },
        { TestDevice.Cuda, "bf16", 0.999 },
        { TestDevice.Cuda, "nvfp4", 0.98 },
        { TestDevice.Cuda, "int4", 0.97 },
        { TestDevice.Cuda, "int4-zero", 0.97 },
        { TestDevice.Cuda, "fp8-two-term", 0.999 },
    };

    private static string Reference => Path.Combine(RepositoryFolder.TinyModel, "reference.safetensors");

    // Without the longest prompt, which is half of all positions: the CPU device takes its time.
    private static string ShortReference(TemporaryFolder folder)
    {
        using SafetensorsFile whole = SafetensorsFile.Open(Reference);
        TensorInfo[] kept = [.. whole.Tensors.Values.Where(t => !t.Name.StartsWith("prompt4.", StringComparison.Ordinal))];
        Assert.InRange(kept.Length, 1, whole.Tensors.Count - 1);
        string path = folder.File("reference.safetensors");
        using SafetensorsOutput output = SafetensorsOutput.Create(path, kept.Select(t => new TensorDeclaration(t.Name, t.Type, t.Shape)), whole.Metadata);
        foreach (TensorInfo tensor in kept)
            output.Write(tensor.Name, whole.Bytes(tensor));
        output.Complete();
        return path;
    }

    [Theory]
    [MemberData(nameof(Bars))]
    public async Task It_recites_and_keeps_its_logits(TestDevice device, string format, double leastCosine)
    {
        using var folder = new TemporaryFolder();
        string verses = folder.Write("verses.json", """[{"prompt": "Psalm 23:1", "answer": "The LORD is my shepherd; I shall not want."}]""");
        ModelFormatResult result = Assert.Single(await ModelFormatEvaluator.EvaluateAsync(devices.Open(device), RepositoryFolder.TinyModel, [CheckpointFormat.Parse(format)], new ModelFormatOptions
        {
            Verses = verses,
            Reference = device == TestDevice.Cuda ? Reference : ShortReference(folder),
        }, TestContext.Current.CancellationToken));
        TestContext.Current.TestOutputHelper?.WriteLine($"{format}: least {result.LeastCosine}, mean {result.MeanCosine}, top-1 {result.TopOneAgreement}");
        Assert.Equal(1, result.Verses!.ExactCount);
        Assert.InRange(result.LeastCosine!.Value, leastCosine, 1.000001);
        Assert.InRange(result.MeanCosine!.Value, result.LeastCosine.Value, 1.000001);
        Assert.InRange(result.TopOneAgreement!.Value, 0.85, 1);
    }
}
