using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

public sealed class DecodeGraphTests
{
    /// <summary>What changes between tokens is read from the device: one recorded step decodes a whole sequence.</summary>
    [Fact]
    public void ARecordedStepIsReplayedForEveryPosition()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using GpuStream stream = device.CreateStream();
        using var direct = new Step(device, stream);
        using var replayed = new Step(device, stream);
        direct.Run(position: 0);
        replayed.Run(position: 0);
        using GpuGraph graph = GpuGraph.Capture(stream, replayed.Record);
        Assert.Equal(7, graph.Nodes);
        for (int position = 1; position < 140; position++)
        {
            replayed.SetPosition(position);
            graph.Replay(stream);
            Assert.Equal(direct.Run(position), replayed.Result());
        }
    }

    private sealed class Step(GpuDevice device, GpuStream stream) : IDisposable
    {
        private const int Vocabulary = 300, Heads = 4, HeadDim = 64, Width = Heads * HeadDim, Capacity = 140;

        private readonly RotaryTable table = new(device, HeadDim, Capacity, 1e4);
        private readonly KvCache cache = new(device, 1, 1, HeadDim, Capacity);
        private readonly SamplerState sampler = new(device, Vocabulary);
        private readonly DeviceBuffer<BFloat16> embeddings = device.Upload<BFloat16>(RandomData.GaussianBf16(Vocabulary * (Heads + 2) * HeadDim, seed: 1));
        private readonly DeviceBuffer<BFloat16> gain = device.Upload<BFloat16>(RandomData.GaussianBf16((Heads + 2) * HeadDim, seed: 2));
        private readonly DeviceBuffer<int> token = device.Upload<int>([5]);
        private readonly DeviceBuffer<int> position = device.Upload<int>([0]);
        private readonly DeviceBuffer<float> x = device.Allocate<float>((Heads + 2) * HeadDim);
        private readonly DeviceBuffer<BFloat16> qkv = device.Allocate<BFloat16>((Heads + 2) * HeadDim);
        private readonly DeviceBuffer<BFloat16> q = device.Allocate<BFloat16>(Width);
        private readonly DeviceBuffer<BFloat16> y = device.Allocate<BFloat16>(Width);
        private readonly DeviceBuffer<float> logits = device.Upload<float>(RandomData.Gaussian(Vocabulary, seed: 3));
        private readonly DeviceBuffer<int> ids = device.Allocate<int>(4);
        private readonly DeviceBuffer<float> weights = device.Allocate<float>(4);

        public void Record()
        {
            int row = (Heads + 2) * HeadDim;
            Embedding.Lookup(stream, embeddings, token, x, 1, row);
            RmsNorm.Apply(stream, x, gain, qkv, new(1, row, 1e-6f));
            QkNormRotary.Apply(stream, qkv, position, q, cache.Layer(0), new(1, Heads, table) { QueryGain = gain.View.SubView(0, HeadDim), KeyGain = gain.View.SubView(HeadDim, HeadDim), Epsilon = 1e-6f });
            Attention.Apply(stream, q, cache.Layer(0), position, y, new(1, Heads));
            Router.SelectExperts(stream, logits, ids, weights, 1, new(128, 4, true));
            MoeCombine.Apply(stream, x, weights, logits, new(1, 1, Vocabulary));
            Sampler.Sample(stream, logits, sampler, new() { Temperature = 1, TopP = 0.9f, Seed = 1 }, token);
        }

        public void SetPosition(int value) => position.CopyFrom(stream, [value]);

        public (string Output, int Token) Run(int position)
        {
            SetPosition(position);
            Record();
            return Result();
        }

        public (string Output, int Token) Result() => (string.Join(' ', y.ToArray(stream)), token.ToArray(stream)[0]);

        public void Dispose()
        {
            foreach (IDisposable owned in (IDisposable[])[table, cache, sampler, embeddings, gain, token, position, x, qkv, q, y, logits, ids, weights])
                owned.Dispose();
        }
    }
}
