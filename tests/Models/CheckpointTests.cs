using System.Diagnostics;
using System.Text.Json;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>Single files and shards, and the ways in which an index can lie.</summary>
public sealed class CheckpointTests
{
    private const string Index = "model.safetensors.index.json";

    public static TheoryData<string> HostileShardNames =>
    [
        "../outside.safetensors", "..", ".", "", "sub/one.safetensors", "sub\\one.safetensors", "/etc/passwd", "C:one.safetensors",
        "\\\\server\\share.safetensors", ".hidden.safetensors", "one.safetensors/", "one.bin", "one.safetensors\0", "one\n.safetensors",
        "one*.safetensors", "~/one.safetensors", new string('x', 300) + ".safetensors",
    ];

    [Fact]
    public void Shards_make_one_checkpoint()
    {
        using TemporaryFolder folder = TwoShards();
        using var checkpoint = Checkpoint.Open(folder.Path);
        Assert.Equal(["a", "b", "c"], checkpoint.Names.Order());
        Assert.Equal([1, 2], checkpoint.Bytes("a").ToArray());
        Assert.Equal([4], checkpoint.Bytes("c", 1, 1).ToArray());
        Assert.Equal(5, checkpoint.TotalBytes);
        Assert.True(checkpoint.Contains("b"));
        Assert.False(checkpoint.Contains("d"));
        Assert.Contains("'d'", Assert.Throws<ModelFileException>(() => checkpoint.Info("d")).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_closed_checkpoint_is_not_read()
    {
        using TemporaryFolder folder = TwoShards();
        var checkpoint = Checkpoint.Open(folder.Path);
        checkpoint.Dispose();
        Assert.Throws<ObjectDisposedException>(() => { checkpoint.Bytes("a"); });
    }

    [Fact]
    public void A_missing_folder_a_file_and_an_empty_folder_are_refused()
    {
        using var folder = new TemporaryFolder();
        Refused(folder.File("nowhere"), "does not exist");
        Refused(folder.Write("file", "x"), "is a file");
        using var empty = new TemporaryFolder();
        Refused(empty.Path, Index);
    }

    [Theory]
    [MemberData(nameof(HostileShardNames))]
    public void A_shard_name_that_is_no_bare_file_name_is_refused(string name)
    {
        using TemporaryFolder folder = TwoShards();
        WriteIndex(folder, ("a", name), ("b", "one.safetensors"), ("c", "two.safetensors"));
        Refused(folder.Path, Index);
    }

    [Fact]
    public void An_index_that_disagrees_with_its_shards_is_refused()
    {
        using TemporaryFolder folder = TwoShards();
        WriteIndex(folder, ("a", "one.safetensors"), ("b", "one.safetensors"));
        Refused(WithIndex(folder, ("a", "one.safetensors"), ("b", "one.safetensors"), ("c", "one.safetensors")), "'c'");
        Refused(WithIndex(folder, ("a", "two.safetensors"), ("b", "one.safetensors"), ("c", "two.safetensors")), "'a'");
        Refused(WithIndex(folder, ("a", "one.safetensors"), ("b", "one.safetensors"), ("c", "two.safetensors"), ("d", "two.safetensors")), "'d'");
        Refused(WithIndex(folder, ("a", "one.safetensors"), ("c", "two.safetensors")), "'b'");
        Refused(WithIndex(folder, ("a", "one.safetensors"), ("b", "one.safetensors"), ("c", "three.safetensors")), "three.safetensors: file not found");
    }

    [Fact]
    public void A_tensor_in_two_shards_is_refused()
    {
        using TemporaryFolder folder = TwoShards();
        SafetensorsWriter.Write(folder.File("two.safetensors"), [("c", TensorType.U8, [1], [3]), ("a", TensorType.U8, [1], [9])]);
        Refused(folder.Path, "'a'");
    }

    [Theory]
    [InlineData("")]
    [InlineData("[]")]
    [InlineData("{}")]
    [InlineData("{\"weight_map\":null}")]
    [InlineData("{\"weight_map\":{}}")]
    [InlineData("{\"weight_map\":{\"a\":1}}")]
    [InlineData("{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}}")]
    [InlineData("{\"weight_map\":{\"\\ud800\":\"one.safetensors\"}}")]
    [InlineData("{\"weight_map\":{\"a\":\"\\ud800.safetensors\"}}")]
    [InlineData("{\"weight_map\":{\"a\":\"one.safetensors\"}")]
    [InlineData("{\"weight_map\":{\"a\":\"one.safetensors\"}} x")]
    [InlineData("{\"weight_map\":{\"a\":\"one.safetensors\"},\"weight_map\":{\"a\":\"one.safetensors\"}}")]
    public void A_malformed_index_is_refused(string json)
    {
        using TemporaryFolder folder = TwoShards();
        folder.Write(Index, json);
        Refused(folder.Path, Index);
    }

    [Fact]
    public void A_link_out_of_the_folder_is_refused_and_one_within_is_followed()
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "links need a privilege there");
        using TemporaryFolder outside = TwoShards();
        using TemporaryFolder folder = TwoShards();
        File.Delete(folder.File("two.safetensors"));
        File.CreateSymbolicLink(folder.File("two.safetensors"), outside.File("two.safetensors"));
        Refused(folder.Path, "link that leads out");

        // Through a link of its own folder, and through a linked folder.
        File.Delete(folder.File("two.safetensors"));
        File.CreateSymbolicLink(folder.File("hop"), outside.File("two.safetensors"));
        File.CreateSymbolicLink(folder.File("two.safetensors"), "hop");
        Refused(folder.Path, "link that leads out");
        Directory.CreateSymbolicLink(folder.File("sub"), outside.Path);
        File.Delete(folder.File("two.safetensors"));
        File.CreateSymbolicLink(folder.File("two.safetensors"), "sub/two.safetensors");
        Refused(folder.Path, "link that leads out");

        File.Delete(folder.File("two.safetensors"));
        File.CreateSymbolicLink(folder.File("two.safetensors"), "two.safetensors");
        Refused(folder.Path, "two.safetensors");

        File.Delete(folder.File("two.safetensors"));
        File.Copy(outside.File("two.safetensors"), folder.File("blob"));
        File.CreateSymbolicLink(folder.File("two.safetensors"), "blob");
        Checkpoint.Open(folder.Path).Dispose();

        string alias = outside.File("alias");
        Directory.CreateSymbolicLink(alias, folder.Path);
        Checkpoint.Open(alias).Dispose();
        Directory.Delete(alias);
    }

    [Fact]
    public void A_pipe_does_not_hang_the_reader()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "mkfifo is needed");
        using var folder = new TemporaryFolder();
        using (var make = Process.Start("mkfifo", folder.File("model.safetensors")))
        {
            make.WaitForExit();
        }

        Refused(folder.Path, "not a regular file");
    }

    private static TemporaryFolder TwoShards()
    {
        var folder = new TemporaryFolder();
        SafetensorsWriter.Write(folder.File("one.safetensors"), [("a", TensorType.U8, [2], [1, 2]), ("b", TensorType.U8, [1], [5])]);
        SafetensorsWriter.Write(folder.File("two.safetensors"), [("c", TensorType.U8, [2], [3, 4])]);
        WriteIndex(folder, ("a", "one.safetensors"), ("b", "one.safetensors"), ("c", "two.safetensors"));
        return folder;
    }

    private static string WithIndex(TemporaryFolder folder, params (string Name, string Shard)[] map)
    {
        WriteIndex(folder, map);
        return folder.Path;
    }

    private static void WriteIndex(TemporaryFolder folder, params (string Name, string Shard)[] map) => folder.Write(
        Index,
        JsonSerializer.SerializeToUtf8Bytes(new { metadata = new { total_size = 5 }, weight_map = map.ToDictionary(m => m.Name, m => m.Shard) }));

    private static void Refused(string folder, string because) =>
        Assert.Contains(because, Assert.Throws<ModelFileException>(() => Checkpoint.Open(folder)).Message, StringComparison.Ordinal);
}
