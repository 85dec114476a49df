using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Matrix products on tensor cores whatever the alignment, K and scale blocks: y[m, n] = Σ_k x[m, k] · W[n, k]. What
/// <see cref="Gemm"/> cannot copy in 16-byte words.
/// </summary>
/// <remarks>
/// A block of four warps computes a tile of 64 × 64, each warp 32 × 32 of it (2 × 4 fragments of m16n8k16), 32 columns of
/// K at a time. Both tiles are staged in shared memory as BF16 (weights decoded on the way), rows padded to 80 bytes: an
/// odd number of 16-byte units, so the eight rows that <c>ldmatrix</c> reads lie in different banks. Products of one
/// scale block are summed apart and folded into the total with the block's multiplier, so codes are multiplied exactly.
/// NVFP4's groups are narrower than a step: the tile holds code times group scale, exact too, and only the matrix's scale is folded.
/// A format of two terms goes along K twice, once a term, into the same totals.
/// Rows, columns and k beyond the matrices are staged as zeros. The order of summation depends on K only.
/// </remarks>
internal static class GemmUnaligned
{
    public const int Threads = 128;
    public const int TileM = 1 << TileShift;
    public const int TileN = 64;

    /// <summary>K columns a step. Scale blocks must not be narrower.</summary>
    public const int TileK = 32;

    private const int TileShift = 6;
    private const int Stride = GemmUnalignedTiles.Stride;
    private const int TileWords = TileM * Stride / 8;

    /// <summary>Accumulators of one lane: 2 fragments along m, 4 along n.</summary>
    private struct Accumulators
    {
        public F4 M0N0, M0N1, M0N2, M0N3, M1N0, M1N1, M1N2, M1N3;
    }

    public static void Run<TFormat, TAccess, TOutput, TRows>(LinearArgs a)
        where TFormat : struct, IWeightFormat
        where TAccess : struct, IAccess
        where TOutput : struct, IOutput
        where TRows : struct, IRowMap
    {
        ArrayView<ushort> table = TFormat.PrepareTable();
        ArrayView<ushort> tileX = SharedMemory.Allocate<U4>(TileWords).Cast<ushort>();
        ArrayView<ushort> tileW = SharedMemory.Allocate<U4>(TileWords).Cast<ushort>();
        ArrayView<int> rows = SharedMemory.Allocate<int>(TileM);
        int firstColumn = Grid.IdxX * TileN;
        for (int tile = Grid.IdxY; ; tile += Grid.DimY)
        {
            GemmRows range = GemmRows.Find<TRows>(a, tile, TileShift);
            if (range.Slab < 0)
                break;
            for (int i = Group.IdxX; i < TileM; i += Group.DimX)
                rows[i] = range.Row<TRows>(a, i);
            // The row list is complete before it is used; the previous tile's reads of it are behind the loop's barriers.
            Block.Barrier();
            Accumulators total = Multiply<TFormat, TAccess, TRows>(a, table, tileX, tileW, rows, range.Slab * TFormat.Terms, firstColumn, default);
            if (TFormat.Terms == 2)
                total = Multiply<TFormat, TAccess, TRows>(a, table, tileX, tileW, rows, (range.Slab * 2) + 1, firstColumn, total);
            Store<TOutput>(a, total, rows, firstColumn);
            // The row list is read to the end before the next tile overwrites it.
            Block.Barrier();
        }
    }

    private static Accumulators Multiply<TFormat, TAccess, TRows>(LinearArgs a, ArrayView<ushort> table, ArrayView<ushort> tileX, ArrayView<ushort> tileW, ArrayView<int> rows, int slab, int firstColumn, Accumulators total)
        where TFormat : struct, IWeightFormat
        where TAccess : struct, IAccess
        where TRows : struct, IRowMap
    {
        Accumulators block = default;
        for (int k = 0; k < a.K; k += TileK)
        {
            GemmUnalignedTiles.StageInputs<TAccess, TRows>(a, tileX, rows, k);
            GemmUnalignedTiles.StageWeights<TFormat, TAccess>(a, table, tileW, slab, firstColumn, k);
            // Both tiles are complete before fragments are read.
            Block.Barrier();
            Step(tileX, tileW, 0, ref block);
            Step(tileX, tileW, 16, ref block);
            // Fragments are read before the next step overwrites the tiles.
            Block.Barrier();
            bool blockEnds = k + TileK >= a.K || (!TFormat.HasGroupScales && ((k + TileK) & ((1 << a.ColumnShift) - 1)) == 0);
            if (TFormat.IsScaled && blockEnds)
            {
                Fold<TFormat>(a, ref total, block, slab, firstColumn, k);
                block = default;
            }
        }
        return TFormat.IsScaled ? total : block;
    }

    // One k16 step of the warp's 32 × 32 part. ldmatrix gives a lane the registers that MmaFragment describes: for x the
    // lanes' addresses walk 16 rows at k, then at k + 8; for W (rows are n) 8 rows at k and k + 8, then the next 8 rows.
    private static void Step(ArrayView<ushort> tileX, ArrayView<ushort> tileW, int k, ref Accumulators c)
    {
        int lane = Warp.LaneIdx, warp = Group.IdxX >> 5;
        int xRow = ((warp >> 1) * 32) + (lane & 15), xColumn = k + ((lane >> 4) * 8);
        int wRow = ((warp & 1) * 32) + (lane & 7) + ((lane >> 4) * 8), wColumn = k + (((lane >> 3) & 1) * 8);
        U4 a0 = LdMatrix.X4(ref tileX[(xRow * Stride) + xColumn]);
        U4 a1 = LdMatrix.X4(ref tileX[((xRow + 16) * Stride) + xColumn]);
        U4 b01 = LdMatrix.X4(ref tileW[(wRow * Stride) + wColumn]);
        U4 b23 = LdMatrix.X4(ref tileW[((wRow + 16) * Stride) + wColumn]);
        U2 b0, b1, b2, b3;
        b0.X = b01.X;
        b0.Y = b01.Y;
        b1.X = b01.Z;
        b1.Y = b01.W;
        b2.X = b23.X;
        b2.Y = b23.Y;
        b3.X = b23.Z;
        b3.Y = b23.W;
        c.M0N0 = Mma.Bf16(a0, b0, c.M0N0);
        c.M0N1 = Mma.Bf16(a0, b1, c.M0N1);
        c.M0N2 = Mma.Bf16(a0, b2, c.M0N2);
        c.M0N3 = Mma.Bf16(a0, b3, c.M0N3);
        c.M1N0 = Mma.Bf16(a1, b0, c.M1N0);
        c.M1N1 = Mma.Bf16(a1, b1, c.M1N1);
        c.M1N2 = Mma.Bf16(a1, b2, c.M1N2);
        c.M1N3 = Mma.Bf16(a1, b3, c.M1N3);
    }

    // First column of the lane's fragment `fragment`: MmaFragment's C columns within the warp's part.
    private static int Column(int firstColumn, int fragment) =>
        firstColumn + (((Group.IdxX >> 5) & 1) * 32) + (fragment * 8) + MmaFragment.CColumn(Warp.LaneIdx, 0);

    private static void Fold<TFormat>(LinearArgs a, ref Accumulators total, Accumulators block, int slab, int firstColumn, int k)
        where TFormat : struct, IWeightFormat
    {
        FoldColumns<TFormat>(a, ref total.M0N0, ref total.M1N0, block.M0N0, block.M1N0, slab, Column(firstColumn, 0), k);
        FoldColumns<TFormat>(a, ref total.M0N1, ref total.M1N1, block.M0N1, block.M1N1, slab, Column(firstColumn, 1), k);
        FoldColumns<TFormat>(a, ref total.M0N2, ref total.M1N2, block.M0N2, block.M1N2, slab, Column(firstColumn, 2), k);
        FoldColumns<TFormat>(a, ref total.M0N3, ref total.M1N3, block.M0N3, block.M1N3, slab, Column(firstColumn, 3), k);
    }

    private static void FoldColumns<TFormat>(LinearArgs a, ref F4 upper, ref F4 lower, F4 upperBlock, F4 lowerBlock, int slab, int n, int k)
        where TFormat : struct, IWeightFormat
    {
        float even = n < a.N ? SumScale<TFormat>(a, slab, n, k) : 0;
        float odd = n + 1 < a.N ? SumScale<TFormat>(a, slab, n + 1, k) : 0;
        upper.X = Fast.Fma(upperBlock.X, even, upper.X);
        upper.Y = Fast.Fma(upperBlock.Y, odd, upper.Y);
        upper.Z = Fast.Fma(upperBlock.Z, even, upper.Z);
        upper.W = Fast.Fma(upperBlock.W, odd, upper.W);
        lower.X = Fast.Fma(lowerBlock.X, even, lower.X);
        lower.Y = Fast.Fma(lowerBlock.Y, odd, lower.Y);
        lower.Z = Fast.Fma(lowerBlock.Z, even, lower.Z);
        lower.W = Fast.Fma(lowerBlock.W, odd, lower.W);
    }

    private static float SumScale<TFormat>(LinearArgs a, int slab, int n, int k)
        where TFormat : struct, IWeightFormat =>
        TFormat.HasGroupScales ? TFormat.MatrixScale(a.ScaleTable, slab) : TFormat.Scale(a.ScaleTable, slab, n, k);

    private static void Store<TOutput>(LinearArgs a, Accumulators c, ArrayView<int> rows, int firstColumn)
        where TOutput : struct, IOutput
    {
        StoreFragment<TOutput>(a, c.M0N0, rows, 0, Column(firstColumn, 0));
        StoreFragment<TOutput>(a, c.M0N1, rows, 0, Column(firstColumn, 1));
        StoreFragment<TOutput>(a, c.M0N2, rows, 0, Column(firstColumn, 2));
        StoreFragment<TOutput>(a, c.M0N3, rows, 0, Column(firstColumn, 3));
        StoreFragment<TOutput>(a, c.M1N0, rows, 16, Column(firstColumn, 0));
        StoreFragment<TOutput>(a, c.M1N1, rows, 16, Column(firstColumn, 1));
        StoreFragment<TOutput>(a, c.M1N2, rows, 16, Column(firstColumn, 2));
        StoreFragment<TOutput>(a, c.M1N3, rows, 16, Column(firstColumn, 3));
    }

    private static void StoreFragment<TOutput>(LinearArgs a, F4 c, ArrayView<int> rows, int row, int n)
        where TOutput : struct, IOutput
    {
        int first = ((Group.IdxX >> 6) * 32) + row;
        StorePair<TOutput>(a, rows[first + MmaFragment.CRow(Warp.LaneIdx, 0)], n, c.X, c.Y);
        StorePair<TOutput>(a, rows[first + MmaFragment.CRow(Warp.LaneIdx, 2)], n, c.Z, c.W);
    }

    private static void StorePair<TOutput>(LinearArgs a, int m, int n, float even, float odd)
        where TOutput : struct, IOutput
    {
        if (m < 0)
            return;
        long start = ((long)m * a.YStride) + n;
        if (n < a.N)
            TOutput.Store(a.Y, start, even);
        if (n + 1 < a.N)
            TOutput.Store(a.Y, start + 1, odd);
    }
}
