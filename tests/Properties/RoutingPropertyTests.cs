using CsCheck;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Properties;

/// <summary>Choosing and sorting experts, and choosing tokens, against a stable sort of the host.</summary>
public sealed class RoutingPropertyTests
{
    // Few different values: ties everywhere.
    private static readonly Gen<float> Logit = Gen.Int[-6, 6].Select(i => i / 2f);

    [Fact]
    public void TheRouterChoosesWhatASortChooses()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        var cases = Gen.Select(Gen.Int[1, 40], Gen.Int[1, 4], Gen.Bool)
            .SelectMany(size => Gen.Select(Gen.Int[1, Math.Min(size.Item1, 32)], Logit.Array[size.Item1 * size.Item2], (topK, logits) => (Experts: size.Item1, size.Item3, topK, logits)));
        Property.Holds(cases, 300, test =>
        {
            (int experts, bool normalize, int topK, float[] logits) = test;
            int tokens = logits.Length / experts;
            using var input = GuardedBuffer<float>.Input(device, logits);
            using var ids = GuardedBuffer<int>.Output(device, tokens * topK);
            using var weights = GuardedBuffer<float>.Output(device, tokens * topK);
            Router.SelectExperts(device.DefaultStream, input.View, ids.View, weights.View, tokens, new(experts, topK, normalize));
            float[][] rows = [.. logits.Chunk(experts)];
            int[][] chosen = [.. rows.Select(row => Enumerable.Range(0, experts).OrderByDescending(e => row[e]).Take(topK).ToArray())];
            Assert.Equal(chosen.SelectMany(c => c), ids.ToArray());
            double[] expected = [.. rows.Zip(chosen).SelectMany(r => r.Second.Select(e => Math.Exp(r.First[e]) / (normalize ? r.Second.Sum(o => Math.Exp(r.First[o])) : r.First.Sum(l => Math.Exp(l)))))];
            Compare.Close(weights.ToArray(), expected, 1e-5);
        });
    }

    [Fact]
    public void PairsAreSortedAsAStableSortSortsThem()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        // Ids of no expert among them.
        var cases = Gen.Int[1, 20].SelectMany(experts => Gen.Int[-2, experts + 1].Array[0, 200].Select(ids => (experts, ids)));
        Property.Holds(cases, 300, test =>
        {
            using var ids = GuardedBuffer<int>.Input(device, test.ids);
            using var order = GuardedBuffer<int>.Output(device, test.ids.Length);
            using var offsets = GuardedBuffer<int>.Output(device, test.experts + 1);
            ExpertSort.Apply(device.DefaultStream, ids.View, order.View, offsets.View, test.ids.Length, test.experts);
            int[] sorted = [.. Enumerable.Range(0, test.ids.Length).Where(p => test.ids[p] >= 0 && test.ids[p] < test.experts).OrderBy(p => test.ids[p])];
            Assert.Equal(sorted, order.ToArray()[..sorted.Length]);
            Assert.Equal(Enumerable.Range(0, test.experts + 1).Select(e => sorted.Count(p => test.ids[p] < e)), offsets.ToArray());
        });
    }
}
