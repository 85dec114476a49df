using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Matrix-vector products for few rows: y[m, n] = Σ_k x[m, k] · W[n, k], float32 sums.
/// </summary>
/// <remarks>
/// One dot product a worker (a warp, or a single thread where warps are emulated). A lane takes every Count-th 16-byte
/// word of the weight row, so a warp reads 512 consecutive bytes at once, and multiplies each word's sum by its block
/// scale (in NVFP4 each half's by its group's, and the whole sum by the matrix's). A format of two terms takes the same word of
/// both, with the same x. Rows of x vary fastest among workers: neighbours read the same weights, from cache. The order of summation
/// depends on K and the lane count only, so a row has the same bits whatever M is.
/// </remarks>
internal static class Gemv
{
    public static void Run<TFormat, TAccess, TOutput, TRows, TLanes>(LinearArgs a)
        where TFormat : struct, IWeightFormat
        where TAccess : struct, IAccess
        where TOutput : struct, IOutput
        where TRows : struct, IRowMap
        where TLanes : struct, ILanes
    {
        ArrayView<ushort> table = TFormat.PrepareTable();
        // Non-negative, so the compiler's shift for a constant warp size rounds as the division does.
        int workersPerBlock = Group.DimX / TLanes.Count;
        long worker = ((long)Grid.IdxX * workersPerBlock) + (Group.IdxX / TLanes.Count);
        long workers = (long)Grid.DimX * workersPerBlock;
        for (long item = worker; item < (long)a.M * a.N; item += workers)
        {
            int n = (int)(item / a.M);
            int m = (int)(item - ((long)n * a.M));
            int slab = TRows.IsGrouped ? a.Experts[m] : 0;
            // Routing comes from the device unchecked: an expert that does not exist reads nothing and gives NaN.
            bool exists = !TRows.IsGrouped || (slab >= 0 && slab < a.ExpertCount);
            long x = (TRows.IsGrouped ? m / a.RowsPerInput : (long)m) * a.K;
            float partial = float.NaN;
            if (exists)
            {
                partial = TAccess.IsVectorised
                    ? DotWords<TFormat, TLanes>(a, table, slab * TFormat.Terms, n, x)
                    : DotElements<TFormat, TLanes>(a, table, slab * TFormat.Terms, n, x);
                if (TFormat.HasGroupScales)
                    partial *= TFormat.MatrixScale(a.ScaleTable, slab);
            }
            float sum = TLanes.Sum(partial);
            if (TLanes.Index == 0)
                TOutput.Store(a.Y, ((long)m * a.YStride) + n, sum);
        }
    }

    private static float DotWords<TFormat, TLanes>(LinearArgs a, ArrayView<ushort> table, int slab, int n, long x)
        where TFormat : struct, IWeightFormat
        where TLanes : struct, ILanes
    {
        // A 16-byte word of weights holds 8 BF16, 16 FP8 or 32 four-bit codes.
        int codesPerLoad = 4 << TFormat.CodesPerWordShift;
        ArrayView<uint> words = a.Codes.Cast<uint>();
        ArrayView<uint> inputs = a.X.Cast<uint>();
        long row = (((long)slab * a.N) + n) * TFormat.RowCodes(a.K);
        float sum = 0;
        for (int k = TLanes.Index * codesPerLoad; k < a.K; k += TLanes.Count * codesPerLoad)
        {
            U4 w = Mem.LoadStream(ref words[(row + k) >> TFormat.CodesPerWordShift]);
            long input = (x + k) >> 1;
            uint offset = TFormat.Offset(a.ScaleTable, slab, n, k);
            if (TFormat.CodesPerWordShift == 3)
            {
                float first = DotNibbles<TFormat>(w.X, w.Y, Mem.LoadReadOnly(ref inputs[input]), Mem.LoadReadOnly(ref inputs[input + 4]), offset, table);
                float second = DotNibbles<TFormat>(w.Z, w.W, Mem.LoadReadOnly(ref inputs[input + 8]), Mem.LoadReadOnly(ref inputs[input + 12]), offset, table);
                float scale = TFormat.Scale(a.ScaleTable, slab, n, k);
                sum = TFormat.HasGroupScales
                    ? Fast.Fma(second, TFormat.Scale(a.ScaleTable, slab, n, k + 16), Fast.Fma(first, scale, sum))
                    : Fast.Fma(first + second, scale, sum);
                continue;
            }
            U4 x0 = Mem.LoadReadOnly(ref inputs[input]);
            if (TFormat.CodesPerWordShift == 1)
            {
                sum += Dot8<TFormat>(w, x0, offset, table);
                continue;
            }
            U4 x1 = Mem.LoadReadOnly(ref inputs[input + 4]);
            sum = Fast.Fma(Dot16<TFormat>(w, x0, x1, offset, table), TFormat.Scale(a.ScaleTable, slab, n, k), sum);
            if (TFormat.Terms == 2)
            {
                U4 residual = Mem.LoadStream(ref words[(row + ((long)a.N * TFormat.RowCodes(a.K)) + k) >> TFormat.CodesPerWordShift]);
                sum = Fast.Fma(Dot16<TFormat>(residual, x0, x1, offset, table), TFormat.Scale(a.ScaleTable, slab + 1, n, k), sum);
            }
        }
        return sum;
    }

    private static float DotElements<TFormat, TLanes>(LinearArgs a, ArrayView<ushort> table, int slab, int n, long x)
        where TFormat : struct, IWeightFormat
        where TLanes : struct, ILanes
    {
        long row = (((long)slab * a.N) + n) * TFormat.RowCodes(a.K);
        float sum = 0;
        for (int k = TLanes.Index; k < a.K; k += TLanes.Count)
        {
            float w = Weight.Value<TFormat>(a.Codes, a.ScaleTable, table, row + k, (slab, n, k), (long)a.N * TFormat.RowCodes(a.K));
            sum = Fast.Fma(w, Bf16.ToFloat(a.X[x + k]), sum);
        }
        return sum;
    }

    // Two accumulators: a dependent chain of half the length.
    private static float Dot8<TFormat>(U4 w, U4 x, uint offset, ArrayView<ushort> table)
        where TFormat : struct, IWeightFormat
    {
        float even = DotPair<TFormat>(w.X, 0, x.X, 0, offset, table);
        float odd = DotPair<TFormat>(w.Y, 0, x.Y, 0, offset, table);
        even = DotPair<TFormat>(w.Z, 0, x.Z, even, offset, table);
        odd = DotPair<TFormat>(w.W, 0, x.W, odd, offset, table);
        return even + odd;
    }

    private static float Dot16<TFormat>(U4 w, U4 x0, U4 x1, uint offset, ArrayView<ushort> table)
        where TFormat : struct, IWeightFormat
    {
        float even = DotPair<TFormat>(w.X, 0, x0.X, 0, offset, table);
        float odd = DotPair<TFormat>(w.X, 1, x0.Y, 0, offset, table);
        even = DotPair<TFormat>(w.Y, 0, x0.Z, even, offset, table);
        odd = DotPair<TFormat>(w.Y, 1, x0.W, odd, offset, table);
        even = DotPair<TFormat>(w.Z, 0, x1.X, even, offset, table);
        odd = DotPair<TFormat>(w.Z, 1, x1.Y, odd, offset, table);
        even = DotPair<TFormat>(w.W, 0, x1.Z, even, offset, table);
        odd = DotPair<TFormat>(w.W, 1, x1.W, odd, offset, table);
        return even + odd;
    }

    // Sixteen four-bit codes: one group of NVFP4.
    private static float DotNibbles<TFormat>(uint w0, uint w1, U4 x0, U4 x1, uint offset, ArrayView<ushort> table)
        where TFormat : struct, IWeightFormat
    {
        float even = DotPair<TFormat>(w0, 0, x0.X, 0, offset, table);
        float odd = DotPair<TFormat>(w0, 1, x0.Y, 0, offset, table);
        even = DotPair<TFormat>(w0, 2, x0.Z, even, offset, table);
        odd = DotPair<TFormat>(w0, 3, x0.W, odd, offset, table);
        even = DotPair<TFormat>(w1, 0, x1.X, even, offset, table);
        odd = DotPair<TFormat>(w1, 1, x1.Y, odd, offset, table);
        even = DotPair<TFormat>(w1, 2, x1.Z, even, offset, table);
        odd = DotPair<TFormat>(w1, 3, x1.W, odd, offset, table);
        return even + odd;
    }

    private static float DotPair<TFormat>(uint word, int pair, uint x, float sum, uint offset, ArrayView<ushort> table)
        where TFormat : struct, IWeightFormat
    {
        uint w = TFormat.DecodePair(word, pair, offset, table);
        return Fast.Fma(Bf16.High(w), Bf16.High(x), Fast.Fma(Bf16.Low(w), Bf16.Low(x), sum));
    }
}
