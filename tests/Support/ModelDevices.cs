using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>
/// Devices of their own for the tests that run whole models: their ledgers count nothing of other tests, so a test can ask
/// that all memory came back. Tests of one collection run one after the other.
/// </summary>
[CollectionDefinition(Collection)]
public sealed class ModelDevices : ICollectionFixture<ModelDevices>, IDisposable
{
    public const string Collection = "Models";

    private readonly Dictionary<TestDevice, GpuDevice> devices = [];
    private readonly Dictionary<TestDevice, LanguageModel> tinyModels = [];

    /// <summary>Theory data: the devices that models are meant to run on.</summary>
    public static TheoryData<TestDevice> All => [.. Devices];

    private static IEnumerable<TestDevice> Devices => TestDevices.Chosen.Where(d => d != TestDevice.CpuWarp32);

    /// <summary>Theory data: these cases on each of the devices.</summary>
    public static TheoryData<TestDevice, T> With<T>(IEnumerable<T> cases)
    {
        var data = new TheoryData<TestDevice, T>();
        T[] all = [.. cases];
        foreach (TestDevice device in Devices)
            foreach (T one in all)
                data.Add(device, one);
        return data;
    }

    /// <summary>The device; skips the test when it is a card and there is none.</summary>
    public GpuDevice Open(TestDevice device)
    {
        TestDevices.Get(device);
        if (!devices.TryGetValue(device, out GpuDevice? open))
            devices.Add(device, open = TestDevices.Open(device));
        return open;
    }

    /// <summary>The model of the repository, loaded once a device.</summary>
    public LanguageModel Tiny(TestDevice device)
    {
        GpuDevice open = Open(device);
        if (!tinyModels.TryGetValue(device, out LanguageModel? model))
            tinyModels.Add(device, model = GuardingAllocator.Shared(() => LanguageModel.Load(open, RepositoryFolder.TinyModel)));
        return model;
    }

    /// <summary>Loads the network of the repository's model once more.</summary>
    public static Qwen3Moe LoadTiny(GpuDevice device, LoadOptions? options = null) =>
        Qwen3Moe.Load(device, RepositoryFolder.TinyModel, options);

    public void Dispose()
    {
        foreach (LanguageModel model in tinyModels.Values)
            model.Dispose();
        foreach (GpuDevice device in devices.Values)
        {
            Assert.Equal((0, 0), (device.Ledger.LiveBytes, device.Ledger.LiveBuffers));
            device.Dispose();
            // The default stream's goes with the device: what is left is a stream's or a graph's that nobody disposed.
            Assert.Equal(0, device.Ledger.ScratchBytes);
        }
    }
}
