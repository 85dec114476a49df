namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>Seeded inputs, so that a failure repeats.</summary>
public static class RandomData
{
    /// <summary>Standard normal values times a factor.</summary>
    public static float[] Gaussian(int count, int seed, float factor = 1)
    {
        var random = new Random(seed);
        var values = new float[count];
        for (int i = 0; i < count; i++)
        {
            double u = 1 - random.NextDouble(), v = random.NextDouble();
            values[i] = (float)(factor * Math.Sqrt(-2 * Math.Log(u)) * Math.Cos(2 * Math.PI * v));
        }
        return values;
    }

    /// <summary>Standard normal values times a factor, rounded to BF16.</summary>
    public static BFloat16[] GaussianBf16(int count, int seed, float factor = 1) =>
        Array.ConvertAll(Gaussian(count, seed, factor), x => (BFloat16)x);

    /// <summary>Small integers, exact in every format: sums of products of them are exact in float32.</summary>
    public static BFloat16[] SmallIntegersBf16(int count, int seed, int bound = 3)
    {
        var random = new Random(seed);
        var values = new BFloat16[count];
        for (int i = 0; i < count; i++)
            values[i] = (BFloat16)(float)random.Next(-bound, bound + 1);
        return values;
    }
}
