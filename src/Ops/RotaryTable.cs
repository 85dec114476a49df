using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>
/// Cosines and sines of the rotary angles, float32 <c>[positions, headDim / 2]</c> each, on a device. The angle of pair i at
/// position p is the float32 product of p and <c>theta^(−2i/headDim)</c> rounded to float32, as the models were trained with;
/// its cosine and sine are those of that float32 number, rounded once.
/// </summary>
public sealed class RotaryTable : IDisposable
{
    private const int RowsAtOnce = 4096;

    private readonly DeviceBuffer<float> cos;
    private readonly DeviceBuffer<float> sin;

    /// <summary>Computes a table on the host and uploads it: 8 bytes a pair and position on the device, a few MB on the host meanwhile.</summary>
    /// <param name="device">Device that holds it.</param>
    /// <param name="headDim">Elements a head: even, at most 256.</param>
    /// <param name="positions">Positions 0..positions − 1: the context length.</param>
    /// <param name="theta">Base of the frequencies (<c>rope_theta</c>), greater than 0.</param>
    /// <exception cref="ArgumentException">An argument is out of range.</exception>
    /// <exception cref="GpuException">Memory is exhausted (<see cref="GpuFault.OutOfMemory"/>).</exception>
    public RotaryTable(GpuDevice device, int headDim, int positions, double theta)
    {
        ArgumentNullException.ThrowIfNull(device);
        Shape.RequireHeadDim(headDim, nameof(headDim));
        Shape.RequirePositive(positions, nameof(positions));
        if (!double.IsFinite(theta) || theta <= 0)
            throw new ArgumentOutOfRangeException(nameof(theta), theta, "The base of the rotary frequencies must be finite and positive.");
        (Device, HeadDim, Positions) = (device, headDim, positions);
        long length = (long)positions * (headDim / 2);
        cos = device.Allocate<float>(length);
        try
        {
            sin = device.Allocate<float>(length);
            Fill(theta);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The device that holds the table.</summary>
    public GpuDevice Device { get; }

    /// <summary>Elements a head.</summary>
    public int HeadDim { get; }

    /// <summary>Positions that have angles.</summary>
    public int Positions { get; }

    /// <summary>Device memory held.</summary>
    public long Bytes => cos.Bytes + sin.Bytes;

    internal ArrayView<float> Cos => cos.View;

    internal ArrayView<float> Sin => sin.View;

    private void Fill(double theta)
    {
        int half = HeadDim / 2;
        var frequencies = new float[half];
        for (int i = 0; i < half; i++)
            frequencies[i] = (float)Math.Pow(theta, -2.0 * i / HeadDim);
        int rows = Math.Min(RowsAtOnce, Positions);
        float[] cosines = new float[rows * half], sines = new float[rows * half];
        for (int first = 0; first < Positions; first += rows)
        {
            int count = Math.Min(rows, Positions - first), start = first;
            Parallel.For(0, count, r =>
            {
                for (int i = 0; i < half; i++)
                {
                    float angle = (start + r) * frequencies[i];
                    (double s, double c) = Math.SinCos(angle);
                    (sines[(r * half) + i], cosines[(r * half) + i]) = ((float)s, (float)c);
                }
            });
            cos.CopyFrom(Device.DefaultStream, cosines.AsSpan(0, count * half), (long)first * half);
            sin.CopyFrom(Device.DefaultStream, sines.AsSpan(0, count * half), (long)first * half);
        }
    }

    /// <summary>Returns the memory. Work that uses it must have finished.</summary>
    public void Dispose()
    {
        cos.Dispose();
        sin?.Dispose();
    }
}
