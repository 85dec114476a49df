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

    /// <summary>
    /// Blocks for tiles that teams of warps take, a block a multiprocessor where so many teams fit into one: launches that begin while others still run would
    /// otherwise be packed onto the multiprocessors that have room, and the full ones be waited for.
    /// </summary>
    /// <param name="device">The device.</param>
    /// <param name="tiles">How many there are.</param>
    /// <param name="mostTeams">Teams that a block may have.</param>
    /// <param name="spare">Multiprocessors that are left to the next launch.</param>
    public static (int Blocks, int Teams) Teams(GpuDevice device, int tiles, int mostTeams, int spare = 0)
    {
        int blocks = Math.Clamp(device.MultiprocessorCount - spare, 1, tiles);
        int teams = Math.Clamp((tiles + blocks - 1) / blocks, 1, mostTeams);
        return ((tiles + teams - 1) / teams <= blocks ? blocks : (tiles + teams - 1) / teams, teams);
    }

    /// <summary>Shared memory of which two blocks do not quite fit onto a multiprocessor: it has a kilobyte more than a block may use, and each block takes that much for itself.</summary>
    public static int HalfOfShared(GpuDevice device)
    {
        const int Reserved = 1024;
        return ((device.MaxSharedBytesPerBlock + Reserved) / 2) - Reserved + 16;
    }

    /// <summary>Shared memory that keeps a second block of the kind off a multiprocessor, where a block for each is enough.</summary>
    public static int SharedOfOneBlock(GpuDevice device, int blocks, int needed) => device.IsCuda && blocks <= device.MultiprocessorCount ? Math.Max(needed, HalfOfShared(device)) : needed;

    /// <summary>Blocks for <paramref name="items"/> items of which one block takes <paramref name="perBlock"/> at a time.</summary>
    public static int Blocks(GpuDevice device, long items, int perBlock)
    {
        long needed = (items + perBlock - 1) / perBlock;
        // At least two on the CPU: a kernel that forgets its block index must fail there too.
        long most = device.IsCuda ? MostBlocks : Math.Max(2, device.MultiprocessorCount);
        return (int)Math.Min(needed, most);
    }
}
