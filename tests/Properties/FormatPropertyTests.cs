using CsCheck;
using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Tests.Oracle;

namespace GpuKit.Ilgpu.Tests.Properties;

/// <summary>What every conversion and every quantiser keeps, whatever the values.</summary>
public sealed class FormatPropertyTests
{
    private const int Times = 20_000;

    private static readonly Gen<float> Number = Gen.UInt.Select(BitConverter.UInt32BitsToSingle).Where(x => !float.IsNaN(x));

    [Fact]
    public void ConversionsNeverTurnTheOrderAround() => Property.Holds(Gen.Select(Number, Number), Times, pair =>
    {
        (float low, float high) = (Math.Min(pair.Item1, pair.Item2), Math.Max(pair.Item1, pair.Item2));
        Assert.True((float)(BFloat16)low <= (float)(BFloat16)high);
        Assert.True(E4M3(low) <= E4M3(high));
        Assert.True(MatrixOracle.E2M1[Nvfp4Code.E2M1(low)] <= MatrixOracle.E2M1[Nvfp4Code.E2M1(high)]);
        Assert.True(MatrixOracle.Int4[Int4Code.Encode(low, 1f)] <= MatrixOracle.Int4[Int4Code.Encode(high, 1f)]);
        Assert.True(Int4ZeroCode.Encode(low, 1f, 5) <= Int4ZeroCode.Encode(high, 1f, 5));
    });

    [Fact]
    public void ConversionsAreSymmetricAndSaturate() => Property.Holds(Number, Times, x =>
    {
        Assert.Equal(-(float)(BFloat16)x, (float)(BFloat16)(-x));
        Assert.Equal(-E4M3(x), E4M3(-x));
        Assert.Equal(Nvfp4Code.E2M1(x) ^ 8, Nvfp4Code.E2M1(-x));
        Assert.InRange(E4M3(x), -448, 448);
        Assert.InRange(MatrixOracle.E2M1[Nvfp4Code.E2M1(x)], -6, 6);
        Assert.True(Math.Abs(x) < 448 || Math.Abs(E4M3(x)) == 448);
        Assert.True(Math.Abs(x) < 6 || Math.Abs(MatrixOracle.E2M1[Nvfp4Code.E2M1(x)]) == 6);
    });

    [Fact]
    public void WhatAFormatHoldsItKeeps()
    {
        // Quantising what was dequantised changes nothing more where scales are exact: powers of two times the largest code.
        var cases = Gen.Select(Gen.OneOf(WeightFormat.Bf16, WeightFormat.Fp8Block, WeightFormat.Nvfp4, WeightFormat.Int4), Gen.Int[-20, 20], Gen.Int[0, 255].Array[32]);
        Property.Holds(cases, 2_000, test =>
        {
            (WeightFormat format, int exponent, int[] codes) = test;
            double[] table = format switch { WeightFormat.Nvfp4 => MatrixOracle.E2M1, WeightFormat.Int4 => MatrixOracle.Int4, _ => MatrixOracle.E4M3 };
            // NaN has no scale, and −8 of INT4 lies beyond the largest code that a scale is made for.
            float[] values = Array.ConvertAll(codes, c => table[c % table.Length] is var v && (double.IsNaN(v) || (format == WeightFormat.Int4 && v == -8)) ? 0 : (float)Math.ScaleB(table[c % table.Length], exponent));
            values[0] = MathF.ScaleB(format.Info().MaxCode is 0 ? 1 : format.Info().MaxCode, exponent);
            values[16] = values[0];
            if (format == WeightFormat.Nvfp4)
                values = Array.ConvertAll(values, v => v * 448 / 512);
            Assert.Equal(values, Quantizer.Dequantize(Quantizer.Quantize(values, 1, 32, format, new ScaleBlock(1, 32))));
        });
    }

    [Fact]
    public void QuantisersAgreeWithTheTablesOnAnyValues()
    {
        // Finite values of any size side by side; the sizes within a group differ by up to 2¹⁰⁰.
        var finite = Gen.Select(Gen.Int[-100, 60], Gen.Int[-4096, 4096], (e, m) => MathF.ScaleB(m, e));
        Property.Holds(Gen.Select(Gen.Enum<WeightFormat>(), finite.Array[32, 96].Select(v => v[..(v.Length / 32 * 32)])), 3_000, test =>
        {
            (WeightFormat format, float[] values) = test;
            Assert.Equal(QuantizerOracle.Values(values, 32, format), Quantizer.Dequantize(Quantizer.Quantize(values, values.Length / 32, 32, format, new ScaleBlock(1, 32))));
        });
    }

    private static double E4M3(float x) => MatrixOracle.E4M3[Cvt.E4M3x2(0f, x) & 0xFF];
}
