using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>The error of formats is what docs/numerics.md says of it, and the same for the same seed.</summary>
public sealed class ProductErrorEvaluatorTests
{
    [Theory]
    [CombinatorialDevices("bf16", 1.2e-3, 2.2e-3)]
    [CombinatorialDevices("fp8", 2.2e-2, 3.1e-2)]
    [CombinatorialDevices("nvfp4", 7.5e-2, 11.5e-2)]
    [CombinatorialDevices("int4", 9e-2, 14e-2)]
    public void Losses_of_Gaussian_weights_are_the_formats(TestDevice device, string format, double least, double most)
    {
        GpuDevice open = TestDevices.Get(device);
        IReadOnlyList<WeightSample> samples = WeightSample.Random(24, 256, 7);
        ErrorCase[] cases = [ErrorCase.All.Single(c => c.Weights.Name == format)];
        IReadOnlyList<ProductError> errors = ProductErrorEvaluator.Measure(open, cases, [samples[0]], 7, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal([1, 8], errors.Select(e => e.M));
        Assert.All(errors, e => Assert.InRange(e.Dequantized.Relative, 0, 1e-5));
        Assert.InRange(errors[1].Unquantized.Relative, least, most);
        Assert.Equal(1, errors[1].Unquantized.Cosine, most * most);
        Assert.InRange(errors[1].Unquantized.Worst, errors[1].Unquantized.Relative, 10 * errors[1].Unquantized.Relative);
        Assert.Equal(errors, ProductErrorEvaluator.Measure(open, cases, [WeightSample.Random(24, 256, 7)[0]], 7, cancellation: TestContext.Current.CancellationToken));
    }

    [Fact]
    public void Samples_have_their_distributions()
    {
        IReadOnlyList<WeightSample> samples = WeightSample.Random(200, 500, 1);
        double Share(int i, double beyond) => samples[i].Values.Count(v => Math.Abs(v) > beyond) / 100_000.0;
        // Beyond 2 lie 4.55 % of a Gaussian and 11.6 % of Student's t with 4 degrees of freedom; beyond 5 almost nothing and 0.75 %.
        Assert.Equal(0.0455, Share(0, 2), 0.003);
        Assert.Equal(0.1161, Share(1, 2), 0.005);
        Assert.Equal(0.0075, Share(1, 5), 0.0015);
        Assert.NotEqual(samples[0].Values, WeightSample.Random(200, 500, 2)[0].Values);
    }

    [Fact]
    public void Samples_of_a_model_are_its_dequantised_projections()
    {
        using var checkpoint = new GeneratedCheckpoint(new CheckpointShape { DenseLayers = [0] });
        IReadOnlyList<WeightSample> samples = WeightSample.OfModel(checkpoint.Folder);
        Assert.Equal([("q_proj", 64, 64), ("gate_proj", 80, 64), ("down_proj", 64, 80)], samples.Select(s => (s.Distribution, s.N, s.K)));
        Assert.Equal(checkpoint.Weights["model.layers.0.mlp.down_proj.weight"].Select(v => (float)v), samples[2].Values);
    }
}
