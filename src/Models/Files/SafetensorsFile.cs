namespace GpuKit.Ilgpu.Models;

/// <summary>
/// A safetensors file, memory-mapped and fully checked when it is opened: header of at most 100,000,000 bytes, no duplicate
/// keys, known types, shapes that equal their byte counts, tensors without hole or overlap up to the end of the file.
/// </summary>
/// <remarks>
/// The spans point into the map: they must not be used after <see cref="Dispose"/>, and the file must not be truncated while
/// it is open. Reading from several threads is safe.
/// </remarks>
public sealed class SafetensorsFile : IDisposable
{
    private readonly MappedFile file;
    private readonly SafetensorsHeader header;
    private readonly long dataStart;

    private SafetensorsFile(MappedFile file, SafetensorsHeader header, long dataStart, string path)
    {
        this.file = file;
        this.header = header;
        this.dataStart = dataStart;
        FilePath = path;
    }

    /// <summary>The path that was opened.</summary>
    public string FilePath { get; }

    /// <summary>The tensors by name.</summary>
    public IReadOnlyDictionary<string, TensorInfo> Tensors => header.Tensors;

    /// <summary>The file's <c>__metadata__</c>; empty when it has none.</summary>
    public IReadOnlyDictionary<string, string> Metadata => header.Metadata;

    /// <summary>Bytes of all tensors together.</summary>
    public long DataBytes => file.Length - dataStart;

    /// <summary>Opens and checks a file.</summary>
    /// <param name="path">The file.</param>
    /// <exception cref="ModelFileException">The file is missing, unreadable or malformed.</exception>
    public static SafetensorsFile Open(string path)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        return Open(path, Path.GetFileName(path));
    }

    internal static SafetensorsFile Open(string path, string fileName)
    {
        MappedFile file = MappedFile.Open(path, fileName);
        try
        {
            ReadOnlySpan<byte> start = file.Span(0, (int)Math.Min(file.Length, SafetensorsHeader.LengthBytes));
            int length = SafetensorsHeader.ReadLength(fileName, start, file.Length);
            long dataStart = SafetensorsHeader.LengthBytes + length;
            var header = SafetensorsHeader.Parse(fileName, file.Span(SafetensorsHeader.LengthBytes, length), file.Length - dataStart);
            return new SafetensorsFile(file, header, dataStart, path);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <summary>All bytes of a tensor, row-major, little-endian.</summary>
    /// <param name="tensor">A tensor of this file.</param>
    /// <exception cref="ArgumentException">The tensor is of another file, or longer than a span can be (2 GB): read it in parts.</exception>
    /// <exception cref="ObjectDisposedException">The file is closed.</exception>
    public ReadOnlySpan<byte> Bytes(TensorInfo tensor)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        return tensor.ByteLength <= int.MaxValue
            ? Bytes(tensor, 0, (int)tensor.ByteLength)
            : throw new ArgumentException($"{tensor} has {tensor.ByteLength} bytes, a span at most {int.MaxValue}; read it in parts", nameof(tensor));
    }

    /// <summary>A part of a tensor's bytes.</summary>
    /// <param name="tensor">A tensor of this file.</param>
    /// <param name="offset">The first byte wanted, counted from the tensor's start.</param>
    /// <param name="length">How many bytes.</param>
    /// <exception cref="ArgumentException">The tensor is of another file, or the part leaves the tensor.</exception>
    /// <exception cref="ObjectDisposedException">The file is closed.</exception>
    public ReadOnlySpan<byte> Bytes(TensorInfo tensor, long offset, int length)
    {
        ArgumentNullException.ThrowIfNull(tensor);
        if (!Tensors.TryGetValue(tensor.Name, out TensorInfo? own) || !ReferenceEquals(own, tensor))
        {
            throw new ArgumentException($"{tensor} is not a tensor of {Path.GetFileName(FilePath)}", nameof(tensor));
        }

        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, tensor.ByteLength - length);
        return file.Span(dataStart + tensor.Offset + offset, length);
    }

    /// <summary>See <see cref="MappedFile.ReleasePages"/>.</summary>
    internal void ReleasePages() => file.ReleasePages();

    /// <summary>Closes the map; spans into it die with it.</summary>
    public void Dispose() => file.Dispose();
}
