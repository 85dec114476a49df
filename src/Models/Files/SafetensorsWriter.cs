namespace GpuKit.Ilgpu.Models;

/// <summary>Writes safetensors files whose contents are in memory; <see cref="SafetensorsOutput"/> writes larger ones.</summary>
public static class SafetensorsWriter
{
    /// <summary>Writes a file, replacing one that is there only when all of it is written.</summary>
    /// <param name="path">The file.</param>
    /// <param name="tensors">Names, types, extents and row-major little-endian bytes. They are stored widest element first, then by name.</param>
    /// <param name="metadata">The file's <c>__metadata__</c>, or null for none.</param>
    /// <exception cref="ArgumentException">Bytes and shape disagree, or <see cref="SafetensorsOutput.Create"/> refuses a tensor.</exception>
    public static void Write(
        string path,
        IEnumerable<(string Name, TensorType Type, long[] Shape, byte[] Bytes)> tensors,
        IReadOnlyDictionary<string, string>? metadata = null)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        ArgumentNullException.ThrowIfNull(tensors);
        (TensorDeclaration Tensor, byte[] Bytes)[] all = [.. tensors.Select(t => (new TensorDeclaration(t.Name, t.Type, t.Shape), t.Bytes))];
        foreach ((TensorDeclaration tensor, byte[] bytes) in all)
        {
            if (bytes.Length != tensor.ByteLength)
            {
                throw new ArgumentException($"tensor {tensor} takes {tensor.ByteLength} bytes; it has {bytes.Length}", nameof(tensors));
            }
        }

        using SafetensorsOutput file = SafetensorsOutput.Create(path, all.Select(t => t.Tensor), metadata);
        foreach ((TensorDeclaration tensor, byte[] bytes) in all)
        {
            file.Write(tensor.Name, bytes);
        }

        file.Complete();
    }
}
