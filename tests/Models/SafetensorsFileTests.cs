using System.Buffers.Binary;
using System.Text;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>Well-formed files: what is written is read, byte by byte.</summary>
public sealed class SafetensorsFileTests
{
    [Fact]
    public void What_is_written_is_read()
    {
        using var folder = new TemporaryFolder();
        var random = new Random(1);
        (string Name, TensorType Type, long[] Shape, byte[] Bytes)[] tensors =
        [
            .. Enum.GetValues<TensorType>().Select((type, i) => ($"tensor.{i} \"é\\🙂", type, (long[])[i, 3], RandomBytes(random, i * 3 * type.SizeInBytes()))),
            ("scalar", TensorType.F32, [], RandomBytes(random, 4)),
        ];
        var metadata = new Dictionary<string, string> { ["format"] = "pt", ["ключ"] = "\n" };
        SafetensorsWriter.Write(folder.File("m.safetensors"), tensors, metadata);

        using var file = SafetensorsFile.Open(folder.File("m.safetensors"));
        Assert.Equal(metadata, file.Metadata);
        Assert.Equal(tensors.Length, file.Tensors.Count);
        Assert.Equal(tensors.Sum(t => t.Bytes.Length), file.DataBytes);
        foreach ((string name, TensorType type, long[] shape, byte[] bytes) in tensors)
        {
            TensorInfo info = file.Tensors[name];
            Assert.Equal(type, info.Type);
            Assert.Equal(shape, info.Shape);
            Assert.True(file.Bytes(info).SequenceEqual(bytes));
            Assert.True(info.ByteLength == 0 || info.Offset % type.SizeInBytes() == 0, $"{info} at {info.Offset}");
        }
    }

    [Fact]
    public void Spans_outlive_the_release_of_their_pages()
    {
        using var folder = new TemporaryFolder();
        byte[] bytes = RandomBytes(new Random(2), 100_001);
        SafetensorsWriter.Write(folder.File("m.safetensors"), [("a", TensorType.U8, [bytes.Length], bytes)]);
        var file = SafetensorsFile.Open(folder.File("m.safetensors"));
        ReadOnlySpan<byte> span = file.Bytes(file.Tensors["a"]);
        for (int i = 0; i < 3; i++)
        {
            Assert.True(span.SequenceEqual(bytes));
            file.ReleasePages();
        }
        file.Dispose();
        Assert.Throws<ObjectDisposedException>(file.ReleasePages);
    }

    [Fact]
    public void A_part_of_a_tensor_is_read_and_its_bounds_are_kept()
    {
        using var folder = new TemporaryFolder();
        SafetensorsWriter.Write(folder.File("m"), [("a", TensorType.U8, [4], [1, 2, 3, 4]), ("b", TensorType.U8, [2], [5, 6])]);
        using var file = SafetensorsFile.Open(folder.File("m"));
        TensorInfo a = file.Tensors["a"];
        Assert.Equal([2, 3], file.Bytes(a, 1, 2).ToArray());
        Assert.Equal([], file.Bytes(a, 4, 0).ToArray());
        Assert.Throws<ArgumentOutOfRangeException>(() => { file.Bytes(a, 3, 2); });
        Assert.Throws<ArgumentOutOfRangeException>(() => { file.Bytes(a, -1, 2); });
        Assert.Throws<ArgumentOutOfRangeException>(() => { file.Bytes(a, 0, -1); });
        Assert.Throws<ArgumentOutOfRangeException>(() => { file.Bytes(a, long.MaxValue, 1); });
        Assert.Throws<ArgumentException>(() => { file.Bytes(a with { Offset = 2 }); });
    }

    [Fact]
    public void A_closed_file_is_not_read()
    {
        using var folder = new TemporaryFolder();
        SafetensorsWriter.Write(folder.File("m"), [("a", TensorType.U8, [4], [1, 2, 3, 4])]);
        var file = SafetensorsFile.Open(folder.File("m"));
        TensorInfo a = file.Tensors["a"];
        file.Dispose();
        file.Dispose();
        Assert.Throws<ObjectDisposedException>(() => { file.Bytes(a); });
    }

    [Fact]
    public void A_file_without_tensors_is_well_formed()
    {
        using var folder = new TemporaryFolder();
        using var file = SafetensorsFile.Open(folder.Write("m", SafetensorsBytes.File("{}  ", 0)));
        Assert.Empty(file.Tensors);
        Assert.Empty(file.Metadata);
    }

    [Fact]
    public void A_tensor_above_2_GB_is_read_in_parts()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "the file is sparse, which NTFS does only when asked");
        const long bytes = 3L << 30;
        using var folder = new TemporaryFolder();
        byte[] header = Encoding.ASCII.GetBytes($"{{\"a\":{{\"dtype\":\"U8\",\"shape\":[{bytes}],\"data_offsets\":[0,{bytes}]}}}}");
        using (FileStream sparse = File.Create(folder.File("m")))
        {
            Span<byte> length = stackalloc byte[8];
            BinaryPrimitives.WriteInt64LittleEndian(length, header.Length);
            sparse.Write(length);
            sparse.Write(header);
            sparse.SetLength(8 + header.Length + bytes);
            sparse.Seek(-1, SeekOrigin.End);
            sparse.WriteByte(7);
        }

        using var file = SafetensorsFile.Open(folder.File("m"));
        TensorInfo a = file.Tensors["a"];
        Assert.Equal([0, 7], file.Bytes(a, bytes - 2, 2).ToArray());
        Assert.Throws<ArgumentException>(() => { file.Bytes(a); });
    }

    [Fact]
    public void The_writer_refuses_what_would_not_be_read()
    {
        using var folder = new TemporaryFolder();
        string path = folder.File("m");
        Assert.Throws<ArgumentException>(() => SafetensorsWriter.Write(path, [("a", TensorType.F32, [1], [1])]));
        Assert.Throws<ArgumentException>(() => SafetensorsWriter.Write(path, [("a", TensorType.U8, [-1], [])]));
        Assert.Throws<ArgumentException>(() => SafetensorsWriter.Write(path, [("__metadata__", TensorType.U8, [0], [])]));
        Assert.Throws<ArgumentException>(() => SafetensorsWriter.Write(path, [("a", TensorType.U8, [0], []), ("a", TensorType.I8, [0], [])]));
        Assert.False(File.Exists(path));
    }

    [Fact]
    public void The_tiny_model_is_read()
    {
        using var checkpoint = Checkpoint.Open(RepositoryFolder.TinyModel);
        Assert.Equal([2048L, 256L], checkpoint.Info("model.embed_tokens.weight").Shape);
        Assert.Equal(TensorType.F8E4M3, checkpoint.Info("model.layers.0.self_attn.q_proj.weight").Type);
        Assert.Equal(checkpoint.TotalBytes, checkpoint.Names.Sum(n => checkpoint.Info(n).ByteLength));
    }

    private static byte[] RandomBytes(Random random, int count)
    {
        byte[] bytes = new byte[count];
        random.NextBytes(bytes);
        return bytes;
    }
}
