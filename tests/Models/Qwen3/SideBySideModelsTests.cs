using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Qwen3;

/// <summary>Two models and several sessions of each on one device, each session on a thread.</summary>
[Collection(ModelDevices.Collection)]
public sealed class SideBySideModelsTests(ModelDevices devices)
{
    [Theory]
    [MemberData(nameof(ModelDevices.All), MemberType = typeof(ModelDevices))]
    public void SessionsOnThreadsDrawWhatTheyDrawAlone(TestDevice which)
    {
        Qwen3Moe tiny = devices.Tiny(which).Network;
        var shape = new CheckpointShape();
        using var checkpoint = new GeneratedCheckpoint(shape);
        using Qwen3Moe other = checkpoint.Load(devices.Open(which));
        (Qwen3Moe Model, int Seed)[] runs = [(tiny, 1), (other, 2), (tiny, 3), (other, 4)];
        int[] Draw((Qwen3Moe Model, int Seed) run)
        {
            using var session = new Qwen3Session(run.Model, 24);
            int[] prompt = ModelRun.RandomIds(5, Math.Min(shape.Vocabulary, run.Model.Config.VocabSize), run.Seed);
            return ModelRun.Continue(session, prompt, which == TestDevice.Cuda ? 12 : 4, new SamplingOptions { Temperature = 1, Seed = (ulong)run.Seed });
        }
        int[][] alone = [.. runs.Select(Draw)];
        var together = new int[runs.Length][];
        for (int repeat = 0; repeat < (which == TestDevice.Cuda ? 10 : 1); repeat++)
        {
            Parallel.For(0, runs.Length, new ParallelOptions { MaxDegreeOfParallelism = runs.Length }, i => together[i] = Draw(runs[i]));
            Assert.Equal(alone, together);
        }
    }
}
