using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// How a KV cache stores its heads, for the kernels that take them number by number: <see cref="QkNormRotary"/> and <see cref="Attention"/>. A row is a position of a
/// KV head, counted through the layer.
/// </summary>
internal interface IKvCells
{
    /// <summary>Stores the key at <paramref name="source"/> of the projection, normed and rotated. By a warp.</summary>
    static abstract void StoreKey(QkNormRotary.Args a, long source, long position, long row);

    /// <summary>Stores the value at <paramref name="source"/>. By a warp.</summary>
    static abstract void StoreValue(QkNormRotary.Args a, long source, long row);

    /// <summary>The product of a query and a key.</summary>
    static abstract float Score(Attention.Args a, ArrayView<float> query, long row);

    /// <summary>sums = sums·decay + Σ_j weights[j]·v[j] over n rows, for this thread's pairs of columns.</summary>
    static abstract void Accumulate(Attention.Args a, ArrayView<float> weights, ArrayView<float> sums, long first, int n, float decay);
}

/// <summary>BF16.</summary>
internal readonly struct Bf16Cells : IKvCells
{
    public static void StoreKey(QkNormRotary.Args a, long source, long position, long row) =>
        QkNormRotary.Rotate(a, source, a.KeyGain, position, a.Keys, row * 2 * a.Half);

    public static void StoreValue(QkNormRotary.Args a, long source, long row)
    {
        for (int i = Warp.LaneIdx * 2; i < 2 * a.Half; i += Warp.WarpSize * 2)
            QkNormRotary.Store(a, a.Values, row * 2 * a.Half, i, QkNormRotary.Load(a, a.Qkv, source, i, 2 * a.Half), 2 * a.Half);
    }

    public static float Score(Attention.Args a, ArrayView<float> query, long row)
    {
        int words = a.HeadDim >> 1;
        float even = 0, odd = 0;
        row *= words;
        if (a.VectorLoads != 0)
        {
            for (int w = 0; w < words; w += 4)
            {
                U4 k = Mem.LoadGlobal(ref a.Keys[row + w]);
                int i = w + w;
                even = Fast.Fma(query[i], Bf16.Low(k.X), even);
                odd = Fast.Fma(query[i + 1], Bf16.High(k.X), odd);
                even = Fast.Fma(query[i + 2], Bf16.Low(k.Y), even);
                odd = Fast.Fma(query[i + 3], Bf16.High(k.Y), odd);
                even = Fast.Fma(query[i + 4], Bf16.Low(k.Z), even);
                odd = Fast.Fma(query[i + 5], Bf16.High(k.Z), odd);
                even = Fast.Fma(query[i + 6], Bf16.Low(k.W), even);
                odd = Fast.Fma(query[i + 7], Bf16.High(k.W), odd);
            }
        }
        else
        {
            for (int w = 0; w < words; w++)
            {
                uint k = Mem.LoadGlobal1(ref a.Keys[row + w]);
                even = Fast.Fma(query[w + w], Bf16.Low(k), even);
                odd = Fast.Fma(query[w + w + 1], Bf16.High(k), odd);
            }
        }
        return even + odd;
    }

    public static void Accumulate(Attention.Args a, ArrayView<float> weights, ArrayView<float> sums, long first, int n, float decay)
    {
        int words = a.HeadDim >> 1;
        for (int i = Group.IdxX; i < words; i += Group.DimX)
        {
            float low = sums[i + i] * decay, high = sums[i + i + 1] * decay;
            long word = (first * words) + i;
            for (int j = 0; j < n; j++)
            {
                uint v = Mem.LoadGlobal1(ref a.Values[word]);
                low = Fast.Fma(weights[j], Bf16.Low(v), low);
                high = Fast.Fma(weights[j], Bf16.High(v), high);
                word += words;
            }
            sums[i + i] = low;
            sums[i + i + 1] = high;
        }
    }
}

/// <summary>
/// E4M3 codes with a scale a row: what BF16 cells would hold, quantised. Codes are decoded exactly, scales multiply scores and weights. Heads are whole 16-byte words.
/// </summary>
internal readonly struct Fp8Cells : IKvCells
{
    public static void StoreKey(QkNormRotary.Args a, long source, long position, long row)
    {
        float factor = QkNormRotary.Factor(a, source, position), largest = 0;
        for (int i = Warp.LaneIdx * 2; i < a.Half; i += Warp.WarpSize * 2)
            largest = IntrinsicMath.Max(largest, Fp8Row.Largest(QkNormRotary.Rotated(a, source, a.KeyGain, position, factor, i)));
        float scale = Fp8Row.Scale(WarpOps.Max(largest));
        for (int i = Warp.LaneIdx * 2; i < a.Half; i += Warp.WarpSize * 2)
        {
            U2 pairs = QkNormRotary.Rotated(a, source, a.KeyGain, position, factor, i);
            a.Keys[((row * 2 * a.Half) + i) >> 1] = Fp8Row.Encode(pairs.X, scale);
            a.Keys[((row * 2 * a.Half) + a.Half + i) >> 1] = Fp8Row.Encode(pairs.Y, scale);
        }
        if (Warp.LaneIdx == 0)
            a.KeyScales[row] = scale;
    }

    public static void StoreValue(QkNormRotary.Args a, long source, long row)
    {
        int headDim = 2 * a.Half;
        float largest = 0;
        for (int i = Warp.LaneIdx * 2; i < headDim; i += Warp.WarpSize * 2)
            largest = IntrinsicMath.Max(largest, Fp8Row.Largest(QkNormRotary.Load(a, a.Qkv, source, i, headDim)));
        float scale = Fp8Row.Scale(WarpOps.Max(largest));
        for (int i = Warp.LaneIdx * 2; i < headDim; i += Warp.WarpSize * 2)
            a.Values[((row * headDim) + i) >> 1] = Fp8Row.Encode(QkNormRotary.Load(a, a.Qkv, source, i, headDim), scale);
        if (Warp.LaneIdx == 0)
            a.ValueScales[row] = scale;
    }

    public static float Score(Attention.Args a, ArrayView<float> query, long row)
    {
        float even = 0, odd = 0;
        for (int i = 0; i < a.HeadDim; i += 16)
        {
            U4 k = Mem.LoadGlobal(ref a.Keys[((row * a.HeadDim) + i) >> 2]);
            Multiply(query, i, k.X, ref even, ref odd);
            Multiply(query, i + 4, k.Y, ref even, ref odd);
            Multiply(query, i + 8, k.Z, ref even, ref odd);
            Multiply(query, i + 12, k.W, ref even, ref odd);
        }
        return (even + odd) * a.KeyScales[row];
    }

    public static void Accumulate(Attention.Args a, ArrayView<float> weights, ArrayView<float> sums, long first, int n, float decay)
    {
        ArrayView<byte> codes = a.Values.Cast<byte>();
        for (int i = 2 * Group.IdxX; i < a.HeadDim; i += 2 * Group.DimX)
        {
            float low = sums[i] * decay, high = sums[i + 1] * decay;
            for (int j = 0; j < n; j++)
            {
                uint v = Fp8BitMove.DecodePair(Mem.LoadGlobalHalf(ref codes[((first + j) * a.HeadDim) + i]), 0, default);
                float weight = weights[j] * a.ValueScales[first + j];
                low = Fast.Fma(weight, Bf16.Low(v), low);
                high = Fast.Fma(weight, Bf16.High(v), high);
            }
            sums[i] = low;
            sums[i + 1] = high;
        }
    }

    private static void Multiply(ArrayView<float> query, int i, uint word, ref float even, ref float odd)
    {
        uint first = Fp8BitMove.DecodePair(word, 0, default), second = Fp8BitMove.DecodePair(word, 1, default);
        even = Fast.Fma(query[i], Bf16.Low(first), even);
        odd = Fast.Fma(query[i + 1], Bf16.High(first), odd);
        even = Fast.Fma(query[i + 2], Bf16.Low(second), even);
        odd = Fast.Fma(query[i + 3], Bf16.High(second), odd);
    }
}

/// <summary>
/// The quantisation of a row of an FP8 cache, as <see cref="Fp8Code"/> has it: scale = amax / 448 over finite numbers, codes to nearest even, infinities saturate. A row with a NaN
/// has the scale NaN, for its code decodes to a number here.
/// </summary>
internal static class Fp8Row
{
    /// <summary>The largest finite magnitude of a pair; infinity where one is NaN.</summary>
    public static float Largest(uint pair) => IntrinsicMath.Max(Magnitude(Bf16.Low(pair)), Magnitude(Bf16.High(pair)));

    /// <summary>The same of two pairs.</summary>
    public static float Largest(U2 pairs) => IntrinsicMath.Max(Largest(pairs.X), Largest(pairs.Y));

    /// <summary>The scale of a row of this <see cref="Largest(uint)"/>.</summary>
    public static float Scale(float largest) => largest > 3.4028235e38f ? float.NaN : Fp8Code.Scale(largest);

    /// <summary>Two codes, the first in the low byte.</summary>
    public static ushort Encode(uint pair, float scale) => Cvt.E4M3x2(Fast.Div(Bf16.High(pair), scale), Fast.Div(Bf16.Low(pair), scale));

    private static float Magnitude(float x) => (Interop.FloatAsInt(x) & 0x7FFFFFFFu) > 0x7F800000u ? float.PositiveInfinity : Float32.FiniteMagnitude(x);
}
