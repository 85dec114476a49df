using System.Text;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>Whatever a file holds, opening it gives a checked file or one typed exception, soon and without much memory.</summary>
[Collection(nameof(Alone))]
public sealed class SafetensorsMalformedTests
{
    private const int HostileHeaderBytes = 99_999_992;
    private const int DistinctItemBytes = 30_000_000;

    public static TheoryData<string> Names => [.. MalformedSafetensors.All.Keys];

    public static TheoryData<string> Floods => ["tensors", "long names", "metadata", "one string", "white space", "one list", "one tensor's fields", "tiny tensors", "escapes", "one number", "one number's zeros", "nesting", "dtype", "metadata value", "one metadata key", "huge shapes"];

    [Fact]
    public void There_are_enough_named_files() => Assert.True(MalformedSafetensors.All.Count >= 60);

    [Theory]
    [MemberData(nameof(Names))]
    public void A_malformed_file_is_refused(string name)
    {
        using var folder = new TemporaryFolder();
        string path = folder.Write("model.safetensors", MalformedSafetensors.All[name]);
        var refused = Assert.Throws<ModelFileException>(() => SafetensorsFile.Open(path));
        Assert.StartsWith("model.safetensors: ", refused.Message, StringComparison.Ordinal);
        Assert.Equal("model.safetensors", refused.FileName);
        Assert.True(refused.Message.Length < 1_000, refused.Message);
        Assert.DoesNotContain(refused.Message, char.IsControl);
    }

    [Fact]
    public void A_missing_file_and_a_folder_are_refused()
    {
        using var folder = new TemporaryFolder();
        Assert.Contains("not found", Assert.Throws<ModelFileException>(() => SafetensorsFile.Open(folder.File("x"))).Message, StringComparison.Ordinal);
        Assert.Contains("folder", Assert.Throws<ModelFileException>(() => SafetensorsFile.Open(folder.Path)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Floods))]
    public void A_header_of_100_MB_is_refused_soon_and_without_much_memory(string kind)
    {
        byte[] header = Flood(kind);
        HostileInput.IsRefusedCheaply(() => SafetensorsHeader.Parse("f", header, 0));
    }

    private static byte[] Flood(string kind)
    {
        byte[] header = new byte[HostileHeaderBytes];
        header.AsSpan().Fill((byte)' ');
        (string start, Func<int, string> item) = kind switch
        {
            "tensors" => ("{", i => $"\"{i}\":{{\"dtype\":\"U8\",\"shape\":[0,1,1,1,1,1,1,1],\"data_offsets\":[0,0]}},"),
            "long names" => ("{", i => $"\"{i}{new string('n', 1_000)}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}},"),
            "metadata" => ("{\"__metadata__\":{", i => $"\"{i}\":\"\","),
            "one string" => ("{\"", _ => "nnnnnnnn"),
            "tiny tensors" => ("{", i => $"\"{i:x}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}},"),
            "escapes" => ("{\"", _ => "\\u006e"),
            "one number" => ("{\"a\":{\"shape\":[", _ => "99999999"),
            "one number's zeros" => ("{\"a\":{\"shape\":[1.", _ => "00000000"),
            "nesting" => ("{\"a\":", _ => "[[[[[[[["),
            "dtype" => ("{\"a\":{\"dtype\":\"", _ => "F32F32F3"),
            "metadata value" => ("{\"__metadata__\":{\"\":\"", _ => "nnnnnnnn"),
            "one metadata key" => ("{\"__metadata__\":{\"", _ => "\\ud83d\\ude00"),
            "huge shapes" => ("{", i => $"\"{i}\":{{\"dtype\":\"F64\",\"shape\":[1000000000000000000],\"data_offsets\":[0,8000000000000000000]}},"),
            "one list" => ("{\"a\":{\"shape\":[", _ => "1,1,1,1,"),
            "one tensor's fields" => ("{\"a\":{", i => $"\"{i}\":0,"),
            _ => ("{", (Func<int, string>)(_ => "        ")),
        };
        int at = Encoding.ASCII.GetBytes(start, header);
        if (item(0) == item(1))
        {
            byte[] same = Encoding.ASCII.GetBytes(item(0));
            for (; at < header.Length - same.Length; at += same.Length)
            {
                same.CopyTo(header, at);
            }
        }
        else
        {
            // Items that differ are counted, and the limits on them lie far below this.
            for (int i = 0; at < DistinctItemBytes; i++)
            {
                at += Encoding.ASCII.GetBytes(item(i), header.AsSpan(at));
            }
        }

        return header;
    }
}
