namespace GpuKit.Ilgpu;

/// <summary>Rows of x, rows of W and columns of both that a block of <see cref="LinearPath.Gemm"/> multiplies at once.</summary>
internal enum GemmTile
{
    M16N64K128,
    M32N64K128,
    M64N64K64,
    M64N128K64,
    M64N128K128,
    M128N128K64,
    M128N256K64,
    M256N128K64,
    M128N128K128,
    M32N64K256,
    M64N128K256,
    M128N128K256,
}

/// <summary>What the plan must know of a tile in a weight format.</summary>
/// <param name="M">Rows of x.</param>
/// <param name="N">Rows of W.</param>
/// <param name="Threads">Threads of a block.</param>
/// <param name="SharedBytes">Dynamic shared memory of a block.</param>
/// <param name="Parts">Blocks that one of the last tiles is taken apart into; 1 if none is.</param>
internal readonly record struct GemmTileInfo(int M, int N, int Threads, int SharedBytes, int Parts = 1)
{
    /// <summary>Columns of y that a block has.</summary>
    public int Columns(bool gated) => gated ? N / 2 : N;

    /// <summary>Whether a device has the threads and the shared memory.</summary>
    public bool Fits(in LinearDevice device) => Threads <= device.MaxThreads && SharedBytes <= device.SharedBytes;
}
