using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;

namespace GpuKit.Ilgpu;

/// <summary>The kernel family that a multiplication runs on.</summary>
internal enum LinearPath
{
    /// <summary>One thread a dot product; needs no warp features.</summary>
    Scalar,

    /// <summary>One warp a dot product.</summary>
    Gemv,

    /// <summary>Tensor cores with the weights as the wide operand, for at most 16 rows.</summary>
    SkinnyGemm,

    /// <summary>Tensor cores in tiles of up to 64 rows, K spread over warps and blocks.</summary>
    SplitGemm,

    /// <summary>Tensor cores in tiles of many sizes, through a pipeline in shared memory.</summary>
    Gemm,

    /// <summary>Tensor cores in tiles of 64 × 64, for what cannot be copied in 16-byte words or has narrow scale blocks.</summary>
    GemmUnaligned,

    /// <summary>One warp a dot product, with the accumulator chosen by the caller or quantised activations.</summary>
    Accurate,

    /// <summary>The same, one thread a dot product.</summary>
    AccurateScalar,
}

/// <summary>How E4M3 codes become BF16.</summary>
internal enum Fp8Decoding
{
    Table,
    BitMove,
    Hardware,

    /// <summary>Not at all: tensor cores multiply codes by codes.</summary>
    Native,

    /// <summary>Nor here: by the instruction that knows multipliers, on compute capability 12.0. No plan chooses it.</summary>
    NativeScaled,
}

/// <summary>Which kernel runs a multiplication and how it is spread: a pure function of shape and device.</summary>
/// <param name="Path">Kernel family.</param>
/// <param name="Decoding">How E4M3 codes are decoded; the skinny kernel has its own way.</param>
/// <param name="Vectorised">Whether rows are read in 16-byte words.</param>
/// <param name="GridX">Blocks along N; the skinny kernel has as many for each <see cref="SkinnyGemm.RowParts"/>, that which splits K for each tile of rows.</param>
/// <param name="GridY">Blocks along M, or parts of K.</param>
/// <param name="Threads">Threads a block.</param>
/// <param name="Tile">What a block of the pipelined kernel computes.</param>
/// <param name="SharedBytes">Dynamic shared memory of a block of the pipelined kernel, or of that which splits K; of the skinny kernel at least so much.</param>
/// <param name="Split">How K is split, by the kernel that does.</param>
/// <param name="WholeTiles">Blocks of the pipelined kernel that have a whole tile, where the others have a part of one.</param>
/// <param name="ArrangesInputs">Whether the blocks of the skinny kernel arrange x.</param>
internal readonly record struct LinearPlan(
    LinearPath Path, Fp8Decoding Decoding, bool Vectorised, int GridX, int GridY, int Threads, GemmTile? Tile = null, int SharedBytes = 0, SplitPlan? Split = null, int WholeTiles = 0, bool ArrangesInputs = false)
{
    /// <summary>Rows from which tiles take what does not stream: about where they win (16 of a tile's 64 rows pay for it), and beyond the 1 to 16 rows among which a row keeps its bits.</summary>
    public const int GemmFromRows = 17;

    // A grid's y extent is 16 bits; the kernel strides over the rest.
    private const int MostRowTiles = 65_535;

    private const int GemvThreads = 256;

    /// <summary>
    /// The plan, or that of a path, decoder and tile that tests and benchmarks force; a forced <see cref="LinearPath.SplitGemm"/> that cannot run becomes <see cref="LinearPath.Gemm"/>, and that
    /// <see cref="LinearPath.GemmUnaligned"/>.
    /// </summary>
    public static LinearPlan Choose(in LinearShape shape, in LinearDevice device, LinearPath? force = null, Fp8Decoding? decoding = null, GemmTile? tile = null)
    {
        LinearPath path = force ?? ChoosePath(shape, device);
        if (path == LinearPath.SplitGemm && SplitPlan.CanRun(shape, device))
            return SplitPlan.Choose(shape, device).Launch();
        if ((path is LinearPath.Gemm or LinearPath.SplitGemm) && shape.CanPipeline)
            return GemmPlan.Choose(shape, device, gated: false, tile);
        if (path is LinearPath.Gemm or LinearPath.SplitGemm or LinearPath.GemmUnaligned)
            return new LinearPlan(LinearPath.GemmUnaligned, TileDecoding(shape.Format), shape.Aligned, Tiles(shape.N, GemmUnaligned.TileN), RowTiles(shape), GemmUnaligned.Threads);
        // The table is what an architecture without the conversion uses, and the fastest on the CPU, where every emulated
        // instruction is a call.
        Fp8Decoding decode = decoding ?? (!device.IsCuda ? Fp8Decoding.Table : device.Arch >= 89 ? Fp8Decoding.Hardware : Fp8Decoding.BitMove);
        if (!IsFp8(shape.Format))
            decode = Fp8Decoding.Table;
        if (path == LinearPath.SkinnyGemm)
        {
            int tiles = Tiles(shape.N, SkinnyGemm.Rows), warps = SkinnyWarps.Of(shape, device, tiles);
            bool arranges = SkinnyLinear.Arranges(shape, device, tiles, warps);
            return new LinearPlan(path, decode, true, tiles, 1, 32 * warps, SharedBytes: arranges ? 0 : SkinnyRoom.Bytes(shape, device, tiles, warps), ArrangesInputs: arranges);
        }
        int threads = Math.Min(GemvThreads, device.MaxThreads);
        int perBlock = path is LinearPath.Gemv or LinearPath.Accurate ? threads / device.WarpSize : threads;
        long blocks = (((long)shape.M * shape.N) + perBlock - 1) / perBlock;
        long most = device.IsCuda ? int.MaxValue : Math.Max(2, device.Multiprocessors);
        return new LinearPlan(path, decode, shape.Aligned, (int)Math.Min(blocks, most), 1, threads);
    }

    /// <summary>
    /// For quantised activations, of which few rows stream and many run in tiles where there are any, and for accumulators other than float32 (no activations in
    /// the shape then). Tests and benchmarks force a path, and for tiles a decoder and a tile; forced tiles that the shape cannot have become dot products.
    /// </summary>
    public static LinearPlan ChooseAccurate(in LinearShape shape, in LinearDevice device, LinearPath? force = null, Fp8Decoding? decoding = null, GemmTile? tile = null)
    {
        LinearPath path = force ?? ChooseAccuratePath(shape, device);
        if (path == LinearPath.Gemm && shape.HasTilesOfCodes)
            return GemmPlan.ChooseCodes(shape, device, decoding, tile);
        if (path == LinearPath.Gemm)
            path = device.IsCuda ? LinearPath.Accurate : LinearPath.AccurateScalar;
        return Choose(shape, device, path, Fp8Decoding.Hardware);
    }

    /// <summary>Kernels with tiles have one decoder: every architecture has it, and it keeps pace with the tensor cores.</summary>
    internal static Fp8Decoding TileDecoding(WeightFormat format) => IsFp8(format) ? Fp8Decoding.BitMove : Fp8Decoding.Table;

    private static bool IsFp8(WeightFormat format) => format is WeightFormat.Fp8Block or WeightFormat.Fp8TwoTerm;

    private static LinearPath ChoosePath(in LinearShape shape, in LinearDevice device)
    {
        if (!device.IsCuda)
            return LinearPath.Scalar;
        if (shape.CanStream && SkinnyLinear.Fits(shape, device))
            return LinearPath.SkinnyGemm;
        if (SplitPlan.IsChosen(shape, device))
            return LinearPath.SplitGemm;
        // Among experts the rows spread: one expert must get enough of them on average.
        long rows = shape.Experts == 0 ? shape.M : shape.M / shape.Experts;
        return rows >= GemmFromRows ? LinearPath.Gemm : LinearPath.Gemv;
    }

    private static LinearPath ChooseAccuratePath(in LinearShape shape, in LinearDevice device)
    {
        if (!device.IsCuda)
            return LinearPath.AccurateScalar;
        if (shape.Activations is not null && shape.CanStream && SkinnyLinear.Fits(shape, device) && SumsFit(shape, device))
            return LinearPath.SkinnyGemm;
        return shape.CanPipelineCodes(device) && shape.M >= GemmFromRows ? LinearPath.Gemm : LinearPath.Accurate;
    }

    // A warp's chunks, of 128 columns, and what is left of K are within the columns that it can add as integers.
    private static bool SumsFit(in LinearShape shape, in LinearDevice device) =>
        shape.Activations != ActivationFormat.Int4 || (shape.K / SkinnyWarps.Of(shape, device, Tiles(shape.N, SkinnyGemm.Rows))) + (4 * SkinnyGemm.ChunkBytes) <= SkinnyGemm.MostIntegerColumns;

    // Each expert's rows start a tile of their own: at most one partial tile an expert beyond the full ones.
    private static int RowTiles(in LinearShape shape) =>
        (int)Math.Min(MostRowTiles, Tiles(shape.M, GemmUnaligned.TileM) + (long)shape.Experts);

    private static int Tiles(int size, int tile) => (int)(((long)size + tile - 1) / tile);
}
