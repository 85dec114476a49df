namespace GpuKit.Ilgpu;

/// <summary>
/// How work is spread over a device. Kernels loop over their work with a grid stride, so any number of blocks is right:
/// a card gets enough to fill it, the CPU one block for each that can run at once (a block costs milliseconds there).
/// </summary>
internal static class LaunchShape
{
    // Past this many blocks a card only queues; the grid-stride loop takes over.
    private const int MostBlocks = 1 << 20;

    /// <summary>Threads a block: the preferred number where the device has it.</summary>
    public static int Threads(GpuDevice device, int preferred) => Math.Min(preferred, device.MaxThreadsPerBlock);

    /// <summary>The whole warps that give each of <paramref name="items"/> items a thread, at least one, within both limits.</summary>
    public static int WholeWarps(GpuDevice device, long items, int most)
    {
        long warps = Math.Max(1, (items + device.WarpSize - 1) / device.WarpSize);
        return (int)Math.Min(warps * device.WarpSize, Threads(device, most));
    }

    /// <summary>Blocks for <paramref name="items"/> items of which one block takes <paramref name="perBlock"/> at a time.</summary>
    public static int Blocks(GpuDevice device, long items, int perBlock)
    {
        long needed = (items + perBlock - 1) / perBlock;
        // At least two on the CPU: a kernel that forgets its block index must fail there too.
        long most = device.IsCuda ? MostBlocks : Math.Max(2, device.MultiprocessorCount);
        return (int)Math.Min(needed, most);
    }
}
