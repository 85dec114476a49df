using System.Buffers.Binary;
using System.Text.Encodings.Web;
using System.Text.Json;
using Microsoft.Win32.SafeHandles;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// A safetensors file that is written tensor by tensor: the header first, from the shapes, then contents in any order. Until
/// <see cref="Complete"/> it lies beside its place under another name, and a file that is never completed is removed.
/// </summary>
/// <remarks>Tensors are stored widest element first, then by name, whatever the order of writing. Not safe for several threads.</remarks>
public sealed class SafetensorsOutput : IDisposable
{
    // Multi-byte elements stay aligned in a reader's map: the header ends on this boundary and wide types come first.
    private const int Alignment = 8;
    private const string ReservedName = "__metadata__";

    private readonly string path, partial;
    private readonly Dictionary<string, (TensorDeclaration Tensor, long Start)> places = new(StringComparer.Ordinal);
    private readonly Dictionary<string, long> written = new(StringComparer.Ordinal);
    private readonly SafeFileHandle file;

    private SafetensorsOutput(string path, IReadOnlyList<TensorDeclaration> ordered, IReadOnlyDictionary<string, string>? metadata)
    {
        this.path = path;
        partial = path + ".partial";
        byte[] header = Header(ordered, metadata);
        RequireReadable(header, ordered, metadata);
        long start = sizeof(long) + header.Length;
        foreach (TensorDeclaration tensor in ordered)
        {
            places.Add(tensor.Name, (tensor, start));
            start = checked(start + tensor.ByteLength);
        }
        // The whole length is asked for at once: a disk that is too full says so before anything is computed.
        file = File.OpenHandle(partial, FileMode.Create, FileAccess.Write, FileShare.None, FileOptions.None, preallocationSize: start);
        Bytes = start;
        var length = new byte[sizeof(long)];
        BinaryPrimitives.WriteInt64LittleEndian(length, header.Length);
        try
        {
            RandomAccess.Write(file, length, 0);
            RandomAccess.Write(file, header, length.Length);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Bytes of the finished file.</summary>
    public long Bytes { get; }

    /// <summary>Creates the file and writes its header.</summary>
    /// <param name="path">Where the finished file lies; one that is there is replaced when the new one is complete.</param>
    /// <param name="tensors">What the file holds.</param>
    /// <param name="metadata">The file's <c>__metadata__</c>, or null for none.</param>
    /// <exception cref="ArgumentException">A name is used twice, reserved, too long or no Unicode text, an extent is negative, or the file would exceed another limit of readers.</exception>
    /// <exception cref="IOException">The disk is full, or the file cannot be created.</exception>
    public static SafetensorsOutput Create(string path, IEnumerable<TensorDeclaration> tensors, IReadOnlyDictionary<string, string>? metadata = null)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        ArgumentNullException.ThrowIfNull(tensors);
        TensorDeclaration[] ordered = [.. tensors.OrderByDescending(t => t.Type.SizeInBytes()).ThenBy(t => t.Name, StringComparer.Ordinal)];
        var names = new HashSet<string>(StringComparer.Ordinal) { ReservedName };
        foreach (TensorDeclaration tensor in ordered)
            if (!names.Add(tensor.Name))
                throw new ArgumentException($"tensor name '{tensor.Name}' is used twice or reserved", nameof(tensors));
        return new SafetensorsOutput(path, ordered, metadata);
    }

    /// <summary>Writes the next bytes of a tensor, row-major, little-endian.</summary>
    /// <param name="name">The tensor.</param>
    /// <param name="bytes">What follows on the bytes of it that are written already.</param>
    /// <exception cref="ArgumentException">The file has no such tensor, or it would become longer than its shape says. Nothing is written then.</exception>
    /// <exception cref="IOException">The disk is full.</exception>
    public void Write(string name, ReadOnlySpan<byte> bytes)
    {
        if (!places.TryGetValue(name, out (TensorDeclaration Tensor, long Start) place))
            throw new ArgumentException($"{Path.GetFileName(path)} declares no tensor '{name}'", nameof(name));
        long before = written.GetValueOrDefault(name);
        if (before > place.Tensor.ByteLength - bytes.Length)
            throw new ArgumentException($"tensor {place.Tensor} takes {place.Tensor.ByteLength} bytes; {before} are written, {bytes.Length} are too many", nameof(bytes));
        RandomAccess.Write(file, bytes, place.Start + before);
        written[name] = before + bytes.Length;
    }

    /// <summary>Ends the file and puts it in its place.</summary>
    /// <exception cref="InvalidOperationException">A tensor is not written to its end; it is named.</exception>
    /// <exception cref="IOException">The file cannot be moved.</exception>
    public void Complete()
    {
        ObjectDisposedException.ThrowIf(file.IsClosed, this);
        foreach ((TensorDeclaration tensor, _) in places.Values)
            if (written.GetValueOrDefault(tensor.Name) != tensor.ByteLength)
                throw new InvalidOperationException($"tensor {tensor} takes {tensor.ByteLength} bytes; {written.GetValueOrDefault(tensor.Name)} are written");
        file.Dispose();
        File.Move(partial, path, overwrite: true);
    }

    /// <summary>Closes the file; one that was not completed is removed.</summary>
    public void Dispose()
    {
        if (file.IsClosed)
            return;
        file.Dispose();
        File.Delete(partial);
    }

    private static byte[] Header(IReadOnlyList<TensorDeclaration> tensors, IReadOnlyDictionary<string, string>? metadata)
    {
        using var text = new MemoryStream();
        using (var json = new Utf8JsonWriter(text, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            json.WriteStartObject();
            if (metadata is not null)
            {
                json.WriteStartObject(ReservedName);
                foreach ((string key, string value) in metadata)
                    json.WriteString(key, value);
                json.WriteEndObject();
            }
            long offset = 0;
            foreach (TensorDeclaration tensor in tensors)
            {
                json.WriteStartObject(tensor.Name);
                json.WriteString("dtype", tensor.Type.Spelling());
                WriteNumbers(json, "shape", tensor.Shape);
                WriteNumbers(json, "data_offsets", [offset, offset = checked(offset + tensor.ByteLength)]);
                json.WriteEndObject();
            }
            json.WriteEndObject();
        }
        while (text.Length % Alignment != 0)
            text.WriteByte((byte)' ');
        return text.ToArray();
    }

    // The reader's own limits, and texts that come back as they are: lone surrogates are written as U+FFFD.
    private void RequireReadable(byte[] header, IReadOnlyList<TensorDeclaration> tensors, IReadOnlyDictionary<string, string>? metadata)
    {
        try
        {
            var read = SafetensorsHeader.Parse(Path.GetFileName(path), header, tensors.Sum(t => t.ByteLength));
            string? changed = tensors.Select(t => t.Name).FirstOrDefault(n => !read.Tensors.ContainsKey(n))
                ?? metadata?.Where(m => read.Metadata.GetValueOrDefault(m.Key) != m.Value).Select(m => m.Key).FirstOrDefault();
            if (changed is not null)
                throw new ArgumentException($"'{Excerpt.Of(changed)}' or its value is no Unicode text: a surrogate in it stands alone", nameof(tensors));
        }
        catch (ModelFileException e)
        {
            throw new ArgumentException($"the file would not be read: {e.Message}", nameof(tensors), e);
        }
    }

    private static void WriteNumbers(Utf8JsonWriter json, string name, IEnumerable<long> numbers)
    {
        json.WriteStartArray(name);
        foreach (long number in numbers)
            json.WriteNumberValue(number);
        json.WriteEndArray();
    }
}
