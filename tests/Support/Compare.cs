namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>Error measures of docs/numerics.md.</summary>
public static class Compare
{
    /// <summary>‖actual − expected‖ / ‖expected‖. NaN and infinity must stand at the same places; they do not count otherwise.</summary>
    public static double RelativeError(ReadOnlySpan<float> actual, ReadOnlySpan<double> expected)
    {
        Assert.Equal(expected.Length, actual.Length);
        double difference = 0, norm = 0;
        for (int i = 0; i < expected.Length; i++)
        {
            if (!double.IsFinite(expected[i]))
            {
                Assert.True(actual[i].Equals((float)expected[i]), $"Element {i} is {actual[i]}, expected {expected[i]}.");
                continue;
            }
            Assert.True(float.IsFinite(actual[i]), $"Element {i} is {actual[i]}, expected {expected[i]}.");
            difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
            norm += expected[i] * expected[i];
        }
        return norm == 0 ? Math.Sqrt(difference) : Math.Sqrt(difference / norm);
    }

    /// <summary>Asserts the relative error of a whole tensor.</summary>
    public static void Close(ReadOnlySpan<float> actual, ReadOnlySpan<double> expected, double tolerance)
    {
        double error = RelativeError(actual, expected);
        Assert.True(error <= tolerance, $"Relative error {error:E3} exceeds {tolerance:E1}.");
    }

    /// <summary>Asserts the relative error of a BF16 tensor.</summary>
    public static void Close(ReadOnlySpan<BFloat16> actual, ReadOnlySpan<double> expected, double tolerance) =>
        Close(ToFloat(actual), expected, tolerance);

    /// <summary>BF16 as float32.</summary>
    public static float[] ToFloat(ReadOnlySpan<BFloat16> values)
    {
        var floats = new float[values.Length];
        for (int i = 0; i < floats.Length; i++)
            floats[i] = (float)values[i];
        return floats;
    }
}
