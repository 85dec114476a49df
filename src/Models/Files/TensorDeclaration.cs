namespace GpuKit.Ilgpu.Models;

/// <summary>A tensor that a file is going to hold.</summary>
/// <param name="Name">Its name.</param>
/// <param name="Type">Its element type.</param>
/// <param name="Shape">Its extents, outermost first; empty for a scalar.</param>
public sealed record TensorDeclaration(string Name, TensorType Type, IReadOnlyList<long> Shape)
{
    /// <summary>Bytes of its contents.</summary>
    /// <exception cref="ArgumentException">An extent is negative.</exception>
    /// <exception cref="OverflowException">The product does not fit 63 bits.</exception>
    public long ByteLength => Shape.Aggregate((long)Type.SizeInBytes(), (product, extent) =>
        checked(product * (extent >= 0 ? extent : throw new ArgumentException($"tensor '{Name}' has the extent {extent}", nameof(Shape)))));

    /// <summary>Name, type and extents as they stand in error messages.</summary>
    public override string ToString() => $"'{Name}' {Type.Spelling()} [{string.Join(", ", Shape)}]";
}
