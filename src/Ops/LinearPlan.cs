using GpuKit.Ilgpu.Kernels;

namespace GpuKit.Ilgpu;

/// <summary>The kernel family that a multiplication runs on.</summary>
internal enum LinearPath
{
    /// <summary>One thread a dot product; needs no warp features.</summary>
    Scalar,

    /// <summary>One warp a dot product.</summary>
    Gemv,

    /// <summary>Tensor cores.</summary>
    Gemm,
}

/// <summary>How E4M3 codes become BF16.</summary>
internal enum Fp8Decoding
{
    Table,
    BitMove,
    Hardware,
}

/// <summary>What the plan must know of a multiplication.</summary>
/// <param name="M">Rows of the output.</param>
/// <param name="N">Output features.</param>
/// <param name="K">Input features.</param>
/// <param name="Format">Weight format.</param>
/// <param name="Aligned">Whether every row of x and W starts on a 16-byte boundary and is whole 16-byte words long.</param>
/// <param name="Experts">Matrices to choose from, or 0 when there is no choice.</param>
internal readonly record struct LinearShape(int M, int N, int K, WeightFormat Format, bool Aligned, int Experts);

/// <summary>What the plan must know of a device.</summary>
/// <param name="IsCuda">A card, not the CPU.</param>
/// <param name="Arch">Compute capability as major·10 + minor; 0 on the CPU.</param>
/// <param name="WarpSize">Lanes a warp.</param>
/// <param name="MaxThreads">Threads a block can have.</param>
/// <param name="Multiprocessors">Blocks that run at once.</param>
internal readonly record struct LinearDevice(bool IsCuda, int Arch, int WarpSize, int MaxThreads, int Multiprocessors)
{
    public static LinearDevice Of(GpuDevice device) => new(
        device.IsCuda, device.Target?.Number ?? 0, device.WarpSize, device.MaxThreadsPerBlock, device.MultiprocessorCount);
}

/// <summary>Which kernel runs a multiplication and how it is spread: a pure function of shape and device.</summary>
internal readonly record struct LinearPlan(LinearPath Path, Fp8Decoding Decoding, bool Vectorised, int GridX, int GridY, int Threads)
{
    /// <summary>Rows from which a tensor-core tile beats reading the weights once a row (the tile is 64 rows, of which 16 pay for it).</summary>
    public const int GemmFromRows = 16;

    // A grid's y extent is 16 bits; the kernel strides over the rest.
    private const int MostRowTiles = 65_535;

    private const int GemvThreads = 256;

    public static LinearPlan Choose(in LinearShape shape, in LinearDevice device, LinearPath? force = null, Fp8Decoding? decoding = null)
    {
        LinearPath path = force ?? ChoosePath(shape, device);
        // The table is what an architecture without the conversion uses, and the fastest on the CPU, where every emulated
        // instruction is a call.
        Fp8Decoding decode = decoding ?? (!device.IsCuda ? Fp8Decoding.Table : device.Arch >= 89 ? Fp8Decoding.Hardware : Fp8Decoding.BitMove);
        if (shape.Format != WeightFormat.Fp8Block)
            decode = Fp8Decoding.Table;
        if (path == LinearPath.Gemm)
            return new LinearPlan(path, decode, shape.Aligned, Tiles(shape.N, Gemm.TileN), RowTiles(shape), Gemm.Threads);
        int threads = Math.Min(GemvThreads, device.MaxThreads);
        int perBlock = path == LinearPath.Gemv ? threads / device.WarpSize : threads;
        long blocks = (((long)shape.M * shape.N) + perBlock - 1) / perBlock;
        long most = device.IsCuda ? int.MaxValue : Math.Max(2, device.Multiprocessors);
        return new LinearPlan(path, decode, shape.Aligned, (int)Math.Min(blocks, most), 1, threads);
    }

    private static LinearPath ChoosePath(in LinearShape shape, in LinearDevice device)
    {
        if (!device.IsCuda)
            return LinearPath.Scalar;
        // Among experts the rows spread: one expert must get enough of them on average.
        long rows = shape.Experts == 0 ? shape.M : shape.M / shape.Experts;
        return rows >= GemmFromRows ? LinearPath.Gemm : LinearPath.Gemv;
    }

    // Each expert's rows start a tile of their own: at most one partial tile an expert beyond the full ones.
    private static int RowTiles(in LinearShape shape) =>
        (int)Math.Min(MostRowTiles, Tiles(shape.M, Gemm.TileM) + (long)shape.Experts);

    private static int Tiles(int size, int tile) => (int)(((long)size + tile - 1) / tile);
}
