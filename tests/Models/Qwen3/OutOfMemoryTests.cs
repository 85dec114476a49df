using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Qwen3;

/// <summary>Memory that runs out anywhere between opening a model and its first tokens.</summary>
[Collection(ModelDevices.Collection)]
public sealed class OutOfMemoryTests(ModelDevices devices)
{
    [Theory]
    [InlineData(TestDevice.Cpu, false)]
    [InlineData(TestDevice.Cpu, true)]
    [InlineData(TestDevice.Cuda, false)]
    [InlineData(TestDevice.Cuda, true)]
    public void AtEveryAllocationItIsAnExceptionThatLeavesNothingBehind(TestDevice which, bool toBf16)
    {
        GpuDevice device = devices.Open(which);
        GuardingAllocator memory = GuardingAllocator.Of(device);
        using var checkpoint = new GeneratedCheckpoint(new CheckpointShape());
        var before = (device.Ledger.LiveBytes, device.Ledger.LiveBuffers);
        long start = memory.Allocations;
        int[] expected = LoadAndDraw(device, checkpoint, toBf16);
        int needed = (int)(memory.Allocations - start);
        Assert.InRange(needed, 40, 1000);
        for (int n = 0; n < needed; n++)
        {
            GpuException refused = memory.Refusing(n, () => LoadAndDraw(device, checkpoint, toBf16));
            Assert.Equal(GpuFault.OutOfMemory, refused.Fault);
            Assert.Equal(before, (device.Ledger.LiveBytes, device.Ledger.LiveBuffers));
            Assert.Equal(expected, LoadAndDraw(device, checkpoint, toBf16));
        }
        Assert.Equal(before, (device.Ledger.LiveBytes, device.Ledger.LiveBuffers));
    }

    // Everything that allocates on the way: weights, session, logits of a prompt, the marks of a repetition penalty.
    private static int[] LoadAndDraw(GpuDevice device, GeneratedCheckpoint checkpoint, bool toBf16)
    {
        using Qwen3Moe model = checkpoint.Load(device, new LoadOptions { DequantizeToBf16 = toBf16 });
        // On a card long enough for products whose K is split, which need memory of the stream.
        int[] prompt = [.. Enumerable.Range(0, device.IsCuda ? 20 : 3).Select(i => (3 * i) % 7)];
        using var session = new Qwen3Session(model, prompt.Length + 5);
        session.PrefillWithLogits(prompt, _ => { });
        session.StartSampling(new SamplingOptions { RepetitionPenalty = 1.1f }, prompt);
        return [session.Next(), session.Next()];
    }
}
