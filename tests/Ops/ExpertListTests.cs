using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>The list of the chosen experts: all that exist, in ascending order, with their tokens in order.</summary>
public sealed class ExpertListTests
{
    public static TheoryData<TestDevice, int, int, int> Cases
    {
        get
        {
            var data = new TheoryData<TestDevice, int, int, int>();
            foreach (TestDevice device in new[] { TestDevice.CpuWarp32, TestDevice.Cuda })
                foreach ((int tokens, int experts, int topK) in new[] { (1, 1, 1), (1, 128, 8), (16, 128, 8), (32, 31, 5), (33, 32, 32), (64, 33, 2), (64, 512, 32), (64, 500, 8) })
                    data.Add(device, tokens, experts, topK);
            return data;
        }
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void HasWhoeverIsChosenAndNobodyElse(TestDevice which, int tokens, int experts, int topK)
    {
        GpuDevice device = TestDevices.Get(which);
        var random = new Random(tokens + experts);
        int[] ids = [.. Enumerable.Range(0, tokens).SelectMany(_ => Enumerable.Range(0, experts).OrderBy(_ => random.Next()).Take(topK).ToArray())];
        Check(device, ids, tokens, experts, topK);
        // Every third pair goes nowhere.
        for (int p = 0; p < ids.Length; p += 3)
            ids[p] = (p % 4) switch { 0 => -1, 1 => experts, 2 => int.MinValue, _ => int.MaxValue };
        Check(device, ids, tokens, experts, topK);
        Array.Fill(ids, -1);
        Check(device, ids, tokens, experts, topK);
    }

    /// <summary>Compares a list with what the ids call for.</summary>
    internal static void Check(ExpertMlpWorkspace workspace, int[] ids, int tokens, int experts, int topK)
    {
        (int Expert, int[] Pairs)[] expected = [.. Enumerable.Range(0, ids.Length).Where(p => ids[p] >= 0 && ids[p] < experts).GroupBy(p => ids[p]).OrderBy(g => g.Key).Select(g => (g.Key, g.ToArray()))];
        int[] heads = workspace.Heads.ToArray(workspace.Device.DefaultStream), members = workspace.Members.ToArray(workspace.Device.DefaultStream);
        for (int rank = 0; rank < Math.Min(tokens * topK, experts); rank++)
        {
            if (rank >= expected.Length)
            {
                Assert.Equal(0, heads[(2 * rank) + 1]);
                continue;
            }
            Assert.Equal((expected[rank].Expert, expected[rank].Pairs.Length), (heads[2 * rank], heads[(2 * rank) + 1]));
            Assert.Equal(expected[rank].Pairs, members.Skip(rank * tokens).Take(expected[rank].Pairs.Length).Select(m => m & 0xFFFF));
            Assert.Equal(expected[rank].Pairs.Select(p => p / topK), members.Skip(rank * tokens).Take(expected[rank].Pairs.Length).Select(m => m >> 16));
        }
    }

    private static void Check(GpuDevice device, int[] ids, int tokens, int experts, int topK)
    {
        using var input = GuardedBuffer<int>.Input(device, ids);
        using var workspace = new ExpertMlpWorkspace(device, new ExpertMlpSize(tokens, topK, experts, 8, 8));
        ExpertList.Launch(device.DefaultStream, input.View, workspace.List(tokens, topK, experts), topK, experts);
        Check(workspace, ids, tokens, experts, topK);
    }
}
