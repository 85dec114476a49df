using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Every public operator with small tensors in every format that it takes, on the path that it takes itself: runs on every device.</summary>
internal static class OperatorCases
{
    private const int N = 72, K = 160, Experts = 3, HeadDim = 64, Positions = 24, Vocabulary = 301;

    /// <summary>The format whose codes an activation format's weights have.</summary>
    public static WeightFormat WeightsOf(ActivationFormat format) => format switch
    {
        ActivationFormat.Nvfp4 => WeightFormat.Nvfp4,
        ActivationFormat.Int4 => WeightFormat.Int4,
        _ => WeightFormat.Fp8Block,
    };

    /// <summary>Integer sums need one scale a row.</summary>
    public static ScaleBlock? BlockOf(ActivationFormat format) => format == ActivationFormat.Int4 ? new ScaleBlock(1, 1024) : null;

    public static IEnumerable<SmallCase> All() => [.. Products(), .. Quantizers(), .. Networks()];

    /// <summary>The same, on a card with products of many blocks as well.</summary>
    public static IEnumerable<SmallCase> Of(GpuDevice device) => device.IsCuda ? [.. All(), .. LargeProducts()] : All();

    // Many blocks at once, on every path that a card has for them.
    private static IEnumerable<SmallCase> LargeProducts() =>
        from format in WeightFormats.All
        from m in new[] { 1, 16, 64, 300 }
        select new SmallCase($"Linear {format} [{m}, 1024, 2048]", t =>
        {
            (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<BFloat16> y) = (t.Matrix(format, 1024, 2048), t.Halves(m * 2048), t.Output<BFloat16>(m * 1024));
            return stream => Linear.Multiply(stream, w, x, y, m);
        });

    private static IEnumerable<SmallCase> Products()
    {
        foreach (WeightFormat format in WeightFormats.All)
        {
            foreach (int m in new[] { 1, 5, 33 })
                yield return new($"Linear {format} [{m}, {N}, {K}]", t =>
                {
                    (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<float> y) = (t.Matrix(format, N, K), t.Halves(m * K), t.Output<float>(m * N));
                    return stream => Linear.Multiply(stream, w, x, y, m);
                });
            yield return new($"Linear {format} float64", t =>
            {
                (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<BFloat16> y) = (t.Matrix(format, N, K), t.Halves(2 * K), t.Output<BFloat16>(2 * N));
                return stream => Linear.Multiply(stream, w, x, y, 2, accumulator: Accumulator.Float64);
            });
            yield return new($"MultiplyAdd {format}", t =>
            {
                (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<BFloat16> y) = (t.Matrix(format, N, K), t.Halves(3 * K), t.Output<BFloat16>(3 * N));
                (ArrayView<BFloat16> bias, ArrayView<BFloat16> residual) = (t.Halves(N, 2), t.Halves(3 * N, 3));
                return stream => Linear.MultiplyAdd(stream, w, x, y, 3, bias, residual);
            });
            yield return new($"MultiplyGated {format}", t =>
            {
                (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<BFloat16> y) = (t.Matrix(format, N, K), t.Halves(3 * K), t.Output<BFloat16>(3 * N / 2));
                return stream => Linear.MultiplyGated(stream, w, x, y, 3);
            });
            yield return new($"GroupedLinear {format}", t =>
            {
                (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<float> y) = (t.Matrix(format, N, K, Experts), t.Halves(4 * K), t.Output<float>(4 * N));
                var routing = new ExpertRouting(t.Input<int>([2, 0, 2, 1]), t.Input<int>([1, 3, 0, 2]), t.Input<int>([0, 1, 2, 4]));
                return stream => GroupedLinear.Multiply(stream, w, routing, x, y, new GroupedSize(4));
            });
        }
        foreach (ActivationFormat format in ActivationFormats.All)
            yield return new($"Linear of {format}", t =>
            {
                (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<float> y) = (t.Matrix(WeightsOf(format), N, K, 1, BlockOf(format)), t.Halves(5 * K), t.Output<float>(5 * N));
                QuantizedActivations quantized = t.Activations(format, 5, K);
                return stream =>
                {
                    ActivationQuantizer.Quantize(stream, x, quantized, 5);
                    Linear.Multiply(stream, w, quantized, y, 5);
                };
            });
    }

    private static IEnumerable<SmallCase> Quantizers()
    {
        foreach (WeightFormat format in WeightFormats.All)
        {
            yield return new($"Quantizer {format} from float32 and back", t =>
            {
                (ArrayView<float> values, QuantizedMatrix w, ArrayView<float> back) = (t.Floats(N * K), t.WrittenMatrix(format, N, K), t.Output<float>(N * K));
                return stream =>
                {
                    Quantizer.Quantize(stream, values, w);
                    Quantizer.Dequantize(stream, w, back);
                };
            });
            yield return new($"Quantizer {format} from BF16 and back", t =>
            {
                (ArrayView<BFloat16> values, QuantizedMatrix w, ArrayView<BFloat16> back) = (t.Halves(N * K), t.WrittenMatrix(format, N, K), t.Output<BFloat16>(N * K));
                return stream =>
                {
                    Quantizer.Quantize(stream, values, w);
                    Quantizer.Dequantize(stream, w, back);
                };
            });
        }
    }

    private static IEnumerable<SmallCase> Networks() =>
    [
        new("Embedding", t =>
        {
            (ArrayView<BFloat16> table, ArrayView<int> ids, ArrayView<float> y) = (t.Halves(7 * 40), t.Input<int>([6, 0, 3]), t.Output<float>(3 * 40));
            return stream => Embedding.Lookup(stream, table, ids, y, 3, 40);
        }),
        new("RmsNorm", t =>
        {
            (ArrayView<float> x, ArrayView<BFloat16> gain, ArrayView<BFloat16> y) = (t.Floats(3 * 100), t.Halves(100), t.Output<BFloat16>(3 * 100));
            return stream => RmsNorm.Apply(stream, x, gain, y, new RmsNormShape(3, 100, 1e-6f));
        }),
        new("RmsNorm with an addend", t =>
        {
            (ArrayView<float> x, ArrayView<float> addend, ArrayView<BFloat16> gain, ArrayView<BFloat16> y) =
                (t.Changed(RandomData.Gaussian(3 * 100, 4)), t.Floats(3 * 100), t.Halves(100), t.Output<BFloat16>(3 * 100));
            return stream => RmsNorm.AddAndApply(stream, x, addend, gain, y, new RmsNormShape(3, 100, 1e-6f));
        }),
        new("Rotary", t =>
        {
            (ArrayView<BFloat16> x, RotaryTable table, ArrayView<int> position) = (t.Changed(RandomData.GaussianBf16(3 * 2 * HeadDim, 5)), t.Rotary(HeadDim, Positions), t.Input<int>([2]));
            return stream => Rotary.Apply(stream, x, table, position, 3, 2);
        }),
        AttentionOver(KvCacheFormat.Bf16),
        AttentionOver(KvCacheFormat.Fp8),
        new("Router and ExpertSort", t =>
        {
            (ArrayView<float> logits, ArrayView<int> ids, ArrayView<float> weights) = (t.Floats(5 * 16), t.Output<int>(5 * 3), t.Output<float>(5 * 3));
            (ArrayView<int> order, ArrayView<int> offsets) = (t.Output<int>(15), t.Output<int>(17));
            return stream =>
            {
                Router.SelectExperts(stream, logits, ids, weights, 5, new RouterOptions(16, 3, true));
                ExpertSort.Apply(stream, ids, order, offsets, 15, 16);
            };
        }),
        new("MoeCombine", t =>
        {
            (ArrayView<float> experts, ArrayView<float> weights, ArrayView<float> residual) = (t.Floats(2 * 3 * 40), t.Floats(2 * 3), t.Changed(RandomData.Gaussian(2 * 40, 6)));
            return stream => MoeCombine.Apply(stream, experts, weights, residual, new MoeCombineShape(2, 3, 40));
        }),
        new("GatedActivation", t =>
        {
            (ArrayView<BFloat16> gateUp, ArrayView<BFloat16> y) = (t.Halves(3 * 2 * 40), t.Output<BFloat16>(3 * 40));
            return stream => GatedActivation.Apply(stream, gateUp, y, 3, 40);
        }),
        new("Sampler, drawn", t =>
        {
            (ArrayView<float> logits, SamplerState state, ArrayView<int> token, ArrayView<int> seen) = (t.Floats(Vocabulary), t.Sampler(Vocabulary), t.Output<int>(1), t.Input<int>([4, 9]));
            return stream =>
            {
                state.MarkSeen(stream, seen);
                Sampler.Sample(stream, logits, state, new SamplingOptions { Temperature = 1, TopK = 50, TopP = 0.9f, MinP = 0.01f, RepetitionPenalty = 1.2f, Seed = 3 }, token);
            };
        }),
        new("Sampler, greedy", t =>
        {
            (ArrayView<float> logits, SamplerState state, ArrayView<int> token) = (t.Floats(Vocabulary), t.Sampler(Vocabulary), t.Output<int>(1));
            return stream => Sampler.Sample(stream, logits, state, SamplingOptions.Greedy, token);
        }),
        new("DeviceCounter", t =>
        {
            ArrayView<int> counter = t.Changed<int>([3]);
            return stream => DeviceCounter.Advance(stream, counter, 4);
        }),
    ];

    private static SmallCase AttentionOver(KvCacheFormat format) => new($"QkNormRotary and Attention over {format}", t =>
    {
        (KvCache cache, RotaryTable table, ArrayView<int> position) = (t.Cache(2, HeadDim, Positions, format), t.Rotary(HeadDim, Positions), t.Input<int>([5]));
        (ArrayView<BFloat16> qkv, ArrayView<BFloat16> q, ArrayView<BFloat16> y) = (t.Halves(3 * 8 * HeadDim), t.Output<BFloat16>(3 * 4 * HeadDim), t.Output<BFloat16>(3 * 4 * HeadDim));
        var options = new QkNormRotaryOptions(3, 4, table) { QueryGain = t.Halves(HeadDim, 2), KeyGain = t.Halves(HeadDim, 3), Epsilon = 1e-6f };
        return stream =>
        {
            QkNormRotary.Apply(stream, qkv, position, q, cache.Layer(0), options);
            Attention.Apply(stream, q, cache.Layer(0), position, y, new AttentionShape(3, 4));
        };
    });
}
