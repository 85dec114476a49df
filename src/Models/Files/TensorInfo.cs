namespace GpuKit.Ilgpu.Models;

/// <summary>Where a tensor lies in its file and what it is.</summary>
/// <param name="Name">Its name, for example <c>model.norm.weight</c>.</param>
/// <param name="Type">Its element type.</param>
/// <param name="Shape">Its extents, outermost first, row-major; empty for a scalar.</param>
/// <param name="Offset">Bytes from the start of the file's data section.</param>
/// <param name="ByteLength">Its length in bytes: the product of the extents times the size of an element.</param>
public sealed record TensorInfo(string Name, TensorType Type, IReadOnlyList<long> Shape, long Offset, long ByteLength)
{
    /// <summary>Type and extents as they stand in error messages: <c>F8_E4M3 [768, 2048]</c>.</summary>
    public override string ToString() => $"{Excerpt.Of(Name)}: {Type.Spelling()} [{string.Join(", ", Shape)}]";
}
