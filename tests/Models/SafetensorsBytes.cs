using System.Buffers.Binary;
using System.Text;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>Safetensors files put together by hand, right or wrong.</summary>
internal static class SafetensorsBytes
{
    /// <summary>A well-formed file of two tensors and metadata, for tests to break.</summary>
    public const string GoodHeader =
        """{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}""";

    public const int GoodDataBytes = 32;

    public static byte[] File(string header, int dataBytes = GoodDataBytes) => File(Encoding.UTF8.GetBytes(header), dataBytes);

    public static byte[] File(byte[] header, int dataBytes = GoodDataBytes, ulong? claimed = null)
    {
        byte[] file = new byte[8 + header.Length + dataBytes];
        BinaryPrimitives.WriteUInt64LittleEndian(file, claimed ?? (ulong)header.Length);
        header.CopyTo(file, 8);
        return file;
    }

    /// <summary>The good header with one part of it replaced.</summary>
    public static byte[] With(string part, string replacement)
    {
        if (!GoodHeader.Contains(part, StringComparison.Ordinal))
        {
            throw new ArgumentException($"'{part}' is not in the good header", nameof(part));
        }

        return File(GoodHeader.Replace(part, replacement, StringComparison.Ordinal));
    }
}
