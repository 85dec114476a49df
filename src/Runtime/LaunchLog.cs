using System.Text;

namespace GpuKit.Ilgpu.Runtime;

/// <summary>
/// The last launches of a device, kept so that a fault can name its suspects: a faulting kernel is only noticed at some
/// later call. A ring without locks or allocation; torn entries under contention are acceptable in a diagnostic.
/// </summary>
internal sealed class LaunchLog
{
    private const int Capacity = 16;

    private readonly (KernelDefinition? Kernel, int GridX, int GridY, int GridZ, int Threads)[] entries =
        new (KernelDefinition?, int, int, int, int)[Capacity];

    private long count;

    /// <summary>Launches since the device was opened.</summary>
    public long Count => Interlocked.Read(ref count);

    public void Add(KernelDefinition kernel, int gridX, int gridY, int gridZ, int threads)
    {
        long index = Interlocked.Increment(ref count) - 1;
        entries[index & (Capacity - 1)] = (kernel, gridX, gridY, gridZ, threads);
    }

    /// <summary>The last launches, newest first, one a line.</summary>
    public string Describe(int most = 8)
    {
        var text = new StringBuilder();
        long newest = Count - 1;
        for (long i = newest; i >= 0 && i > newest - Math.Min(most, Capacity); i--)
        {
            var (kernel, x, y, z, threads) = entries[i & (Capacity - 1)];
            text.Append('\n').Append("  ").Append(kernel?.Name ?? "(being written)")
                .Append($" grid {x}×{y}×{z}, {threads} threads");
        }
        return text.Length == 0 ? " none" : text.ToString();
    }
}
