using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Dot products with what <see cref="Gemm"/> does to its sums, where that cannot run: on the CPU, for odd alignments and for narrow
/// scale blocks. Element by element; one dot product (two where W holds gates and values) a worker.
/// </summary>
internal static class GemvFused
{
    public static void Run<TFormat, TLanes, TEpilogue>(LinearArgs a)
        where TFormat : struct, IWeightFormat
        where TLanes : struct, ILanes
        where TEpilogue : struct, IGemmEpilogue
    {
        ArrayView<ushort> table = TFormat.PrepareTable();
        int workersPerBlock = Group.DimX / TLanes.Count;
        long worker = ((long)Grid.IdxX * workersPerBlock) + (Group.IdxX / TLanes.Count);
        long workers = (long)Grid.DimX * workersPerBlock;
        int width = TEpilogue.IsGated ? a.N >> 1 : a.N;
        for (long item = worker; item < (long)a.M * width; item += workers)
        {
            int n = (int)(item / a.M);
            int m = (int)(item - ((long)n * a.M));
            float sum = Dot<TFormat, TLanes>(a, table, n, m);
            float result = TEpilogue.IsGated ? GatedActivation.Silu(sum) * Dot<TFormat, TLanes>(a, table, n + width, m) : Added<TEpilogue>(a, sum, n, m);
            if (TLanes.Index == 0)
                Bf16Output.Store(a.Y, ((long)m * a.YStride) + n, result);
        }
    }

    private static float Added<TEpilogue>(LinearArgs a, float sum, int n, int m)
        where TEpilogue : struct, IGemmEpilogue
    {
        if (TEpilogue.AddsBias)
            sum += Bf16.ToFloat(a.Bias[n]);
        if (TEpilogue.AddsResidual)
            sum += Bf16.ToFloat(a.Residual[((long)m * a.N) + n]);
        return sum;
    }

    private static float Dot<TFormat, TLanes>(LinearArgs a, ArrayView<ushort> table, int n, int m)
        where TFormat : struct, IWeightFormat
        where TLanes : struct, ILanes
    {
        long row = (long)n * TFormat.RowCodes(a.K), x = (long)m * a.K;
        float partial = 0;
        for (int k = TLanes.Index; k < a.K; k += TLanes.Count)
        {
            float w = Weight.Value<TFormat>(a.Codes, a.ScaleTable, table, row + k, (0, n, k), (long)a.N * TFormat.RowCodes(a.K));
            partial = Fast.Fma(w, Bf16.ToFloat(a.X[x + k]), partial);
        }
        if (TFormat.HasGroupScales)
            partial *= TFormat.MatrixScale(a.ScaleTable, 0);
        return TLanes.Sum(partial);
    }
}
