using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>One weight at a time, for what reads element by element.</summary>
internal static class Weight
{
    /// <summary>
    /// A weight in float32, without the scale of the whole matrix: code · scale, rounded, and where there is a second term that
    /// added with one rounding, which is what the kernels that sum codes do.
    /// </summary>
    /// <param name="codes">Codes of the matrix.</param>
    /// <param name="scales">Its scales.</param>
    /// <param name="table">What the format prepared.</param>
    /// <param name="index">Index of the first term's code.</param>
    /// <param name="place">Slab of the first term, row and column.</param>
    /// <param name="termCodes">Codes from a term to the next.</param>
    public static float Value<TFormat>(ArrayView<byte> codes, ScaleTable scales, ArrayView<ushort> table, long index, (int Slab, int N, int K) place, long termCodes)
        where TFormat : struct, IWeightFormat
    {
        (int slab, int n, int k) = place;
        float value = Bf16.ToFloat(TFormat.DecodeOne(codes, index, TFormat.Offset(scales, slab, n, k), table));
        if (TFormat.IsScaled)
            value *= TFormat.Scale(scales, slab, n, k);
        if (TFormat.Terms == 2)
        {
            float residual = Bf16.ToFloat(TFormat.DecodeOne(codes, index + termCodes, TFormat.Offset(scales, slab + 1, n, k), table));
            value = Fast.Fma(residual, TFormat.Scale(scales, slab + 1, n, k), value);
        }
        return value;
    }
}
