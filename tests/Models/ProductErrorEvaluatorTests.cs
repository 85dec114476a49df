using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>The error of formats is what docs/numerics.md says of it, and the same for the same seed.</summary>
public sealed class ProductErrorEvaluatorTests
{
    [Theory]
    [CombinatorialDevices("bf16, bf16, float32", 1.2e-3, 2.2e-3)]
    [CombinatorialDevices("bf16, bf16, kahan", 1.2e-3, 2.2e-3)]
    [CombinatorialDevices("bf16, bf16, float64", 1.2e-3, 2.2e-3)]
    [CombinatorialDevices("fp8, bf16, float32", 2.2e-2, 3.1e-2)]
    [CombinatorialDevices("fp8, fp8-g128, float32", 3.1e-2, 4.3e-2)]
    [CombinatorialDevices("fp8-32, fp8-g32, kahan", 3.0e-2, 4.2e-2)]
    [CombinatorialDevices("fp8-32, fp8-g32, float64", 3.0e-2, 4.2e-2)]
    [CombinatorialDevices("fp8-two-term, bf16, float32", 4e-4, 1e-3)]
    [CombinatorialDevices("nvfp4, bf16, float32", 7.5e-2, 11.5e-2)]
    [CombinatorialDevices("nvfp4, nvfp4, float32", 10e-2, 17e-2)]
    [CombinatorialDevices("int4, bf16, float32", 9e-2, 14e-2)]
    [CombinatorialDevices("int4-zero, bf16, float32", 8e-2, 12.5e-2)]
    [CombinatorialDevices("int4-row, int4-row, float32", 15e-2, 25e-2)]
    public void Losses_of_Gaussian_weights_are_the_formats(TestDevice device, string name, double least, double most)
    {
        GpuDevice open = TestDevices.Get(device);
        IReadOnlyList<WeightSample> samples = WeightSample.Random(24, 256, 7);
        ErrorCase[] cases = [ErrorCase.All.Single(c => $"{c.Weights.Name}, {c.ActivationName}, {c.AccumulatorName}" == name)];
        IReadOnlyList<ProductError> errors = ProductErrorEvaluator.Measure(open, cases, [samples[0]], 7, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal([1, 8], errors.Select(e => e.M));
        // Nothing but the output's own rounding is left of the better sums.
        Assert.All(errors, e => Assert.InRange(e.Dequantized.Relative, 0, cases[0].Accumulator == Accumulator.Float32 ? 1e-5 : 6e-8));
        Assert.InRange(errors[1].Unquantized.Relative, least, most);
        Assert.Equal(1, errors[1].Unquantized.Cosine, most * most);
        Assert.InRange(errors[1].Unquantized.Worst, errors[1].Unquantized.Relative, 10 * errors[1].Unquantized.Relative);
        Assert.Equal(errors, ProductErrorEvaluator.Measure(open, cases, [WeightSample.Random(24, 256, 7)[0]], 7, cancellation: TestContext.Current.CancellationToken));
    }

    [Fact]
    public void Dequantised_operands_are_exact()
    {
        (float[] weights, BFloat16[] x) = (WeightSample.Random(9, 147, 3)[1].Values, WeightSample.Inputs(9, 147, 3));
        foreach (CheckpointFormat format in CheckpointFormat.All)
        {
            HostMatrix matrix = Quantizer.Quantize(weights, 9, 147, format.Format, format.Block);
            double[] expected = MatrixOracle.Values(matrix), actual = ExactValues.Of(matrix);
            // Two-term FP8 is defined with a float32 rounding of its first product, which kernels do for sums and not for weights.
            Assert.All(actual.Zip(expected), v => Assert.Equal(v.Second, v.First, format.Format == WeightFormat.Fp8TwoTerm ? Math.Abs(v.Second) * 1e-7 : 0));
        }
        foreach (ActivationFormat format in Enum.GetValues<ActivationFormat>())
        {
            HostActivations quantized = ActivationQuantizer.Quantize(x, 9, 147, format);
            Assert.Equal(ActivationOracle.Values(quantized), ExactValues.Of(quantized));
        }
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
