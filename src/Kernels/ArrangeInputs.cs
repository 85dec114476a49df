using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Brings 9 to 16 rows of BF16 x into the order in which <see cref="SkinnyGemm"/> multiplies them by codes of four bits, so that what a warp loads at once lies together: [tile of 8 rows][chunk of 128
/// columns][step of eight codes][lane] 16 bytes. Rows beyond M and columns beyond K are zero. A warp a chunk and tile.
/// </summary>
internal static class ArrangeInputs
{
    /// <summary>A step of a tile.</summary>
    public const int StepBytes = 32 * 16;

    /// <summary>A chunk of a tile.</summary>
    public const int ChunkBytes = Steps * StepBytes;

    private const int Steps = 4, ChunkColumns = 128, LaneColumns = ChunkColumns / 4, Tiles = SkinnyGemm.MostInputs / SkinnyGemm.Columns;

    internal struct Args
    {
        /// <summary>[M, K] BF16, rows of whole 16-byte words.</summary>
        public ArrayView<uint> X;

        /// <summary>The arranged tiles: <see cref="Bytes"/>.</summary>
        public ArrayView<uint> Arranged;

        public int M;
        public int K;
    }

    /// <summary>Chunks of a row, the last perhaps in part.</summary>
    public static int Chunks(int k) => (int)(((long)k + ChunkColumns - 1) / ChunkColumns);

    /// <summary>Warps that the launch needs.</summary>
    public static int Warps(int k) => Chunks(k) * Tiles;

    /// <summary>Bytes of all that is arranged.</summary>
    public static long Bytes(int k) => (long)Warps(k) * ChunkBytes;

    public static void Run(Args a)
    {
        int lane = Group.IdxX & 31, item = (Grid.IdxX * (Group.DimX >> 5)) + (Group.IdxX >> 5), chunks = Chunks(a.K);
        int tile = item / chunks, chunk = item - (tile * chunks);
        int row = (tile * SkinnyGemm.Columns) + (lane >> 2), column = (chunk * ChunkColumns) + ((lane & 3) * LaneColumns);
        GridDependency.Release();
        GridDependency.Wait();
        if (tile >= Tiles)
            return;
        SkinnyInputs inputs = default;
        if (row < a.M && column < a.K)
        {
            long from = (((long)row * a.K) + column) >> 1;
            inputs.X0 = Mem.LoadGlobal(ref a.X[from]);
            inputs.X1 = Mem.LoadGlobalAt(ref a.X[from], 16);
            inputs.X2 = Mem.LoadGlobalAt(ref a.X[from], 32);
            inputs.X3 = Mem.LoadGlobalAt(ref a.X[from], 48);
        }
        long to = ((long)item * (ChunkBytes / 4)) + (lane * 4);
        Mem.StoreGlobal(ref a.Arranged[to], FourBitPairs.Arrange(inputs.X0));
        Mem.StoreGlobal(ref a.Arranged[to + (StepBytes / 4)], FourBitPairs.Arrange(inputs.X1));
        Mem.StoreGlobal(ref a.Arranged[to + (2 * StepBytes / 4)], FourBitPairs.Arrange(inputs.X2));
        Mem.StoreGlobal(ref a.Arranged[to + (3 * StepBytes / 4)], FourBitPairs.Arrange(inputs.X3));
    }
}
