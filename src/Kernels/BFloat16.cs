using System.Globalization;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>A 16-bit brain floating-point number: the upper half of a float32. Two bytes, usable in GPU buffers.</summary>
/// <remarks>
/// Equality is that of <see cref="System.Half"/>: the operators follow IEEE 754 (NaN equals nothing), <see cref="Equals(BFloat16)"/>
/// makes NaN equal to NaN; both make +0 equal to −0.
/// </remarks>
public readonly struct BFloat16 : IEquatable<BFloat16>
{
    private readonly ushort bits;

    private BFloat16(ushort bits) => this.bits = bits;

    /// <summary>The encoding: 1 sign, 8 exponent and 7 fraction bits.</summary>
    /// <remarks>
    /// The mask matters on GPUs: ILGPU makes a struct of one field its field and forgets that it is unsigned, so the bare
    /// field of a negative number would arrive sign-extended.
    /// </remarks>
    public ushort Bits => (ushort)(bits & 0xFFFF);

    /// <summary>The number with the given encoding.</summary>
    public static BFloat16 FromBits(ushort bits) => new(bits);

    /// <summary>Whether <paramref name="value"/> is a NaN.</summary>
    public static bool IsNaN(BFloat16 value) => (value.Bits & 0x7FFF) > 0x7F80;

    /// <summary>
    /// Rounds to the nearest BF16 number, ties to even; beyond the range to infinity. Every NaN becomes 0x7FFF, the one
    /// that the GPU's conversion gives.
    /// </summary>
    public static explicit operator BFloat16(float value)
    {
        uint bits = Interop.FloatAsInt(value);
        if ((bits & 0x7FFFFFFF) > 0x7F800000)
            return new BFloat16(0x7FFF);

        // Half of the dropped range, less one unless the kept part is odd: exact halves go to the even neighbour. A carry
        // runs into the exponent, which is the next number, or infinity.
        return new BFloat16((ushort)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16));
    }

    /// <summary>The same number in float32, exactly.</summary>
    public static explicit operator float(BFloat16 value) => Interop.IntAsFloat((uint)value.Bits << 16);

    /// <summary>Whether both are the same number.</summary>
    public static bool operator ==(BFloat16 left, BFloat16 right) => (float)left == (float)right;

    /// <summary>Whether they differ, which a NaN does from everything.</summary>
    public static bool operator !=(BFloat16 left, BFloat16 right) => !(left == right);

    /// <summary>Whether both are the same number or both NaN.</summary>
    public bool Equals(BFloat16 other) => this == other || (IsNaN(this) && IsNaN(other));

    /// <inheritdoc/>
    public override bool Equals(object? obj) => obj is BFloat16 other && Equals(other);

    /// <inheritdoc/>
    public override int GetHashCode() => ((float)this).GetHashCode();

    /// <summary>The number in the invariant culture.</summary>
    public override string ToString() => ((float)this).ToString(CultureInfo.InvariantCulture);
}
