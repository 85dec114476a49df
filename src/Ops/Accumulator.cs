namespace GpuKit.Ilgpu;

/// <summary>How the products of a dot product are added.</summary>
public enum Accumulator
{
    /// <summary>Float32: a rounding an addition, or a tensor core's own sums.</summary>
    Float32,

    /// <summary>Float32 whose rounding errors are summed beside it and added at the end: about twice the digits, at several times the arithmetic.</summary>
    Kahan,

    /// <summary>Float64; slow on cards with few float64 units.</summary>
    Float64,
}
