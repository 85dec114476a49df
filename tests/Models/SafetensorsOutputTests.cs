using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>Files that are written tensor by tensor.</summary>
public sealed class SafetensorsOutputTests
{
    private static readonly TensorDeclaration[] Tensors = [new("b", TensorType.U8, [2, 3]), new("a", TensorType.F32, []), new("c", TensorType.BF16, [0])];

    [Fact]
    public void Contents_come_in_parts_and_in_any_order()
    {
        using var folder = new TemporaryFolder();
        string path = folder.Write("m", "what was there");
        using (SafetensorsOutput output = SafetensorsOutput.Create(path, Tensors, new Dictionary<string, string> { ["format"] = "pt" }))
        {
            output.Write("b", [1, 2, 3, 4]);
            output.Write("a", [0, 0, 128, 63]);
            output.Write("b", [5, 6]);
            Assert.Equal("what was there", File.ReadAllText(path));
            output.Complete();
            Assert.Equal(output.Bytes, new FileInfo(path).Length);
        }
        using SafetensorsFile file = SafetensorsFile.Open(path);
        Assert.Equal([1, 2, 3, 4, 5, 6], file.Bytes(file.Tensors["b"]).ToArray());
        Assert.Equal(1f, BitConverter.ToSingle(file.Bytes(file.Tensors["a"])));
        Assert.Empty(file.Tensors["a"].Shape);
        Assert.Equal("pt", file.Metadata["format"]);
    }

    [Fact]
    public void What_does_not_fit_is_refused_and_an_unfinished_file_is_removed()
    {
        using var folder = new TemporaryFolder();
        using (SafetensorsOutput output = SafetensorsOutput.Create(folder.File("m"), Tensors))
        {
            output.Write("b", [1, 2, 3, 4]);
            Assert.Contains("'b'", Assert.Throws<ArgumentException>(() => output.Write("b", [5, 6, 7])).Message, StringComparison.Ordinal);
            Assert.Contains("'x'", Assert.Throws<ArgumentException>(() => output.Write("x", [])).Message, StringComparison.Ordinal);
            output.Write("a", [0, 0, 0, 0]);
            Assert.Contains("4 are written", Assert.Throws<InvalidOperationException>(output.Complete).Message, StringComparison.Ordinal);
        }
        Assert.Empty(Directory.GetFiles(folder.Path));
        Assert.Throws<OverflowException>(() => SafetensorsOutput.Create(folder.File("m"), [new("a", TensorType.F32, [long.MaxValue])]));
        Assert.Empty(Directory.GetFiles(folder.Path));
    }
}
