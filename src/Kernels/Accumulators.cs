using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>How the products of a dot product are added: the running sum and its arithmetic.</summary>
/// <typeparam name="TSelf">The sum; its default value is zero.</typeparam>
internal interface IAccumulator<TSelf>
    where TSelf : struct, IAccumulator<TSelf>
{
    /// <summary>sum + a·b.</summary>
    static abstract TSelf AddProduct(TSelf sum, float a, float b);

    /// <summary>a + b.</summary>
    static abstract TSelf Add(TSelf a, TSelf b);

    /// <summary>sum · factor.</summary>
    static abstract TSelf Scale(TSelf sum, float factor);

    /// <summary>The lanes' sums added, known to lane 0 at least; all lanes must call.</summary>
    static abstract TSelf SumWarp(TSelf sum);

    /// <summary>sum · a · b as float32.</summary>
    static abstract float Finish(TSelf sum, float a, float b);
}

/// <summary>One float32, a rounding an addition.</summary>
internal struct Float32Sum : IAccumulator<Float32Sum>
{
    public float Sum;

    public static Float32Sum AddProduct(Float32Sum sum, float a, float b)
    {
        sum.Sum = Fast.Fma(a, b, sum.Sum);
        return sum;
    }

    public static Float32Sum Add(Float32Sum a, Float32Sum b)
    {
        a.Sum = Fast.Add(a.Sum, b.Sum);
        return a;
    }

    public static Float32Sum Scale(Float32Sum sum, float factor)
    {
        sum.Sum = Fast.Mul(sum.Sum, factor);
        return sum;
    }

    public static Float32Sum SumWarp(Float32Sum sum)
    {
        sum.Sum = WarpOps.Sum(sum.Sum);
        return sum;
    }

    public static float Finish(Float32Sum sum, float a, float b) => Fast.Mul(Fast.Mul(sum.Sum, a), b);
}

/// <summary>
/// A float32 and the errors of its additions, which are exact float32 numbers themselves (two-sum) and are added at the end:
/// Kahan's compensation in the form that also holds when an addend exceeds the sum. About twice the digits of float32.
/// </summary>
internal struct KahanSum : IAccumulator<KahanSum>
{
    public float Sum;
    public float Error;

    /// <summary>The product must be a float32 number, as that of two BF16 numbers is.</summary>
    public static KahanSum AddProduct(KahanSum sum, float a, float b) => AddFloat(sum, Fast.Mul(a, b));

    public static KahanSum Add(KahanSum a, KahanSum b)
    {
        KahanSum sum = AddFloat(a, b.Sum);
        sum.Error = Fast.Add(sum.Error, b.Error);
        return sum;
    }

    public static KahanSum Scale(KahanSum sum, float factor)
    {
        KahanSum scaled = default;
        scaled.Sum = Fast.Mul(sum.Sum, factor);
        // What the product lost, exactly, and the errors so far.
        scaled.Error = Fast.Fma(sum.Error, factor, Fast.Fma(sum.Sum, factor, -scaled.Sum));
        return scaled;
    }

    public static KahanSum SumWarp(KahanSum sum)
    {
        for (int distance = Warp.WarpSize >> 1; distance > 0; distance >>= 1)
        {
            KahanSum other = default;
            other.Sum = WarpOps.ShuffleXor(sum.Sum, distance);
            other.Error = WarpOps.ShuffleXor(sum.Error, distance);
            sum = Add(sum, other);
        }
        return sum;
    }

    public static float Finish(KahanSum sum, float a, float b)
    {
        KahanSum scaled = Scale(Scale(sum, a), b);
        // An infinite sum leaves infinity minus infinity as its error.
        return float.IsNaN(scaled.Error) ? scaled.Sum : Fast.Add(scaled.Sum, scaled.Error);
    }

    private static KahanSum AddFloat(KahanSum sum, float x)
    {
        KahanSum next = default;
        next.Sum = Fast.Add(sum.Sum, x);
        float added = Fast.Sub(next.Sum, sum.Sum);
        float lost = Fast.Add(Fast.Sub(sum.Sum, Fast.Sub(next.Sum, added)), Fast.Sub(x, added));
        next.Error = Fast.Add(sum.Error, lost);
        return next;
    }
}

/// <summary>One float64.</summary>
internal struct Float64Sum : IAccumulator<Float64Sum>
{
    public double Sum;

    public static Float64Sum AddProduct(Float64Sum sum, float a, float b)
    {
        sum.Sum = Fast.FmaDouble(a, b, sum.Sum);
        return sum;
    }

    public static Float64Sum Add(Float64Sum a, Float64Sum b)
    {
        a.Sum += b.Sum;
        return a;
    }

    public static Float64Sum Scale(Float64Sum sum, float factor)
    {
        sum.Sum *= factor;
        return sum;
    }

    public static Float64Sum SumWarp(Float64Sum sum)
    {
        sum.Sum = WarpOps.SumDouble(sum.Sum);
        return sum;
    }

    public static float Finish(Float64Sum sum, float a, float b) => (float)(sum.Sum * a * b);
}

/// <summary>
/// An integer, for products that are integers: exact for any K. 2³⁰ products of −8..7 stay below 2³⁷; the lanes' sums travel
/// in two parts, each of which stays below 2³¹ over a warp.
/// </summary>
internal struct IntegerSum : IAccumulator<IntegerSum>
{
    private const int LowBits = 16;

    public long Sum;

    public static IntegerSum AddProduct(IntegerSum sum, float a, float b)
    {
        sum.Sum += (int)Fast.Mul(a, b);
        return sum;
    }

    public static IntegerSum Add(IntegerSum a, IntegerSum b)
    {
        a.Sum += b.Sum;
        return a;
    }

    /// <summary>Whole factors only.</summary>
    public static IntegerSum Scale(IntegerSum sum, float factor)
    {
        sum.Sum *= (int)factor;
        return sum;
    }

    public static IntegerSum SumWarp(IntegerSum sum)
    {
        int high = WarpOps.SumInt((int)(sum.Sum >> LowBits)), low = WarpOps.SumInt((int)(sum.Sum & ((1 << LowBits) - 1)));
        sum.Sum = ((long)high << LowBits) + low;
        return sum;
    }

    public static float Finish(IntegerSum sum, float a, float b) => Fast.Mul(Fast.Mul((float)sum.Sum, a), b);
}
