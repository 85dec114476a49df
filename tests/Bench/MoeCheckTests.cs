using GpuKit.Ilgpu.Bench;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Bench;

/// <summary>The benchmark of a layer of experts believes right sums, however many tokens they are of, and no others.</summary>
[Collection(ModelDevices.Collection)]
public sealed class MoeCheckTests(ModelDevices devices)
{
    [Theory]
    [MemberData(nameof(ModelDevices.All), MemberType = typeof(ModelDevices))]
    public void RightSumsPassAndNoneDoNot(TestDevice on)
    {
        GpuDevice device = devices.Open(on);
        Qwen3Moe model = devices.Tiny(on).Network;
        Qwen3MoeConfig config = model.Config;
        int index = Enumerable.Range(0, config.Layers).First(config.IsSparse);
        Qwen3Layer layer = model.Layers[index];
        using GpuStream stream = device.CreateStream();
        using var cache = new KvCache(device, config.Layers, config.KeyValueHeads, config.HeadDim, 1);
        using var rotary = new RotaryTable(device, config.HeadDim, 1, config.RopeTheta);
        foreach (int tokens in new[] { 1, 16, 17, 40 })
        {
            using var workspace = new Qwen3Workspace(device, config, tokens);
            var forward = new Qwen3Forward(model, cache, rotary, workspace);
            BFloat16[] inputs = RandomData.GaussianBf16(tokens * config.HiddenSize, tokens);
            workspace.Normed.CopyFrom(stream, inputs);
            workspace.Residual.Fill(stream, 0);
            Assert.InRange(MoeCheck.Error(layer, config, inputs, () => forward.RunExperts(stream, layer, index, default, tokens), stream, workspace), 1e-6, 6e-3);
            // The check left zeros behind.
            Assert.False(MoeCheck.Error(layer, config, inputs, () => { }, stream, workspace) <= 6e-3);
        }
    }
}
