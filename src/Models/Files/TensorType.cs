namespace GpuKit.Ilgpu.Models;

/// <summary>The element type of a stored tensor, as safetensors files name them.</summary>
public enum TensorType
{
    /// <summary>IEEE 754 binary64.</summary>
    F64,

    /// <summary>IEEE 754 binary32.</summary>
    F32,

    /// <summary>IEEE 754 binary16.</summary>
    F16,

    /// <summary>The upper half of a binary32: 8 exponent bits, 7 mantissa bits.</summary>
    BF16,

    /// <summary>8-bit float with 4 exponent bits, largest finite value 448, no infinities (<c>F8_E4M3</c>).</summary>
    F8E4M3,

    /// <summary>8-bit float with 5 exponent bits (<c>F8_E5M2</c>).</summary>
    F8E5M2,

    /// <summary>Signed 64-bit integer.</summary>
    I64,

    /// <summary>Signed 32-bit integer.</summary>
    I32,

    /// <summary>Signed 16-bit integer.</summary>
    I16,

    /// <summary>Signed 8-bit integer.</summary>
    I8,

    /// <summary>Unsigned 64-bit integer.</summary>
    U64,

    /// <summary>Unsigned 32-bit integer.</summary>
    U32,

    /// <summary>Unsigned 16-bit integer.</summary>
    U16,

    /// <summary>Unsigned 8-bit integer.</summary>
    U8,

    /// <summary>One byte, 0 or 1.</summary>
    Bool,
}
