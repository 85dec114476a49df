using System.Buffers.Binary;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// The header of a safetensors file: 8 bytes of little-endian length, then a JSON object that gives each tensor's type, shape
/// and byte range within the data that follows. The caps keep a hostile header of 100 MB under 64 MB of managed memory (a
/// tensor costs at most about 250 bytes beside its name).
/// </summary>
internal sealed record SafetensorsHeader(
    IReadOnlyDictionary<string, TensorInfo> Tensors, IReadOnlyDictionary<string, string> Metadata)
{
    public const int LengthBytes = 8;
    public const int MaxBytes = 100_000_000;
    public const int MaxTensors = 100_000;
    public const int MaxNameBytes = 1_024;
    public const int MaxAllNameBytes = 8_000_000;
    public const int MaxMetadataBytes = 4_000_000;
    public const int MaxDimensions = 8;

    /// <summary>The length of the JSON text, checked against the file's length.</summary>
    public static int ReadLength(string fileName, ReadOnlySpan<byte> start, long fileBytes)
    {
        if (fileBytes < LengthBytes || start.Length < LengthBytes)
        {
            throw new ModelFileException(fileName, $"has {fileBytes} bytes; a safetensors file starts with 8 bytes of header length");
        }

        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(start);
        if (length > MaxBytes)
        {
            throw new ModelFileException(fileName, $"claims a header of {length} bytes; at most {MaxBytes} are allowed");
        }

        if ((long)length > fileBytes - LengthBytes)
        {
            throw new ModelFileException(fileName, $"its header ends at byte {LengthBytes + (long)length}, the file has {fileBytes}");
        }

        return (int)length;
    }

    /// <summary>Parses the JSON text where it lies and checks it against the number of data bytes that follow it.</summary>
    public static SafetensorsHeader Parse(string fileName, ReadOnlySpan<byte> json, long dataBytes)
    {
        var reader = new SafetensorsHeaderReader(fileName);
        try
        {
            reader.Read(json);
        }
        catch (Exception e) when (ModelJson.IsMalformed(e))
        {
            throw new ModelFileException(fileName, $"its header is not valid JSON: {Excerpt.Of(e.Message)}", e);
        }

        SafetensorsLayout.Check(fileName, reader.Tensors.Values, dataBytes);
        return new SafetensorsHeader(reader.Tensors, reader.Metadata ?? []);
    }
}
