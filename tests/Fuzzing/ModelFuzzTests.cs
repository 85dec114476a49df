using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Fuzzing;

/// <summary>Whole models whose configuration or header of weights is broken at random: loaded, or refused with nothing of them left on the device.</summary>
[Collection(nameof(Alone))]
public sealed class ModelFuzzTests
{
    private static readonly CheckpointShape Shape = new() { Hidden = 32, QueryHeads = 2, KeyValueHeads = 1, Experts = 2, ExpertsPerToken = 1, ExpertWidth = 32, Vocabulary = 40, Layers = 1, Block = (32, 32) };

    [Fact]
    public void A_broken_configuration_leaves_nothing_behind() => Run("models, config.json", checkpoint =>
    {
        string path = Path.Combine(checkpoint.Folder, "config.json");
        Func<Random, byte[]> make = FuzzRun.Mutations(File.ReadAllBytes(path));
        return (make, bytes => File.WriteAllBytes(path, bytes));
    });

    [Fact]
    public void A_broken_header_of_weights_leaves_nothing_behind() => Run("models, safetensors header", checkpoint =>
    {
        string path = Path.Combine(checkpoint.Folder, "model.safetensors");
        byte[] good = File.ReadAllBytes(path);
        int data = 8 + (int)BitConverter.ToUInt64(good);
        var header = new JsonMutation(good[8..data]);
        return (header.Of, bytes => File.WriteAllBytes(path, [.. SafetensorsBytes.File(bytes, 0), .. good[data..]]));
    });

    private static void Run(string name, Func<GeneratedCheckpoint, (Func<Random, byte[]> Make, Action<byte[]> Write)> mutate)
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        using var checkpoint = new GeneratedCheckpoint(Shape);
        (Func<Random, byte[]> make, Action<byte[]> write) = mutate(checkpoint);
        (long, long) before = (device.Ledger.LiveBytes, device.Ledger.LiveBuffers);
        int accepted = FuzzRun.AcceptedOfThousand(name, make, bytes =>
        {
            write(bytes);
            bool read = FuzzRun.Reads(() => checkpoint.Load(device).Dispose());
            Assert.Equal(before, (device.Ledger.LiveBytes, device.Ledger.LiveBuffers));
            return read;
        });
        Assert.InRange(accepted, 1, 900);
    }
}
