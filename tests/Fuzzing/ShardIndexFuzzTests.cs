using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Fuzzing;

/// <summary>Indices of shards, broken at random: a checkpoint opens exactly when the index keeps the rules and says what the shards hold.</summary>
[Collection(nameof(Alone))]
public sealed class ShardIndexFuzzTests
{
    private static readonly Dictionary<string, string> Shards = new() { ["x"] = "a.safetensors", ["y"] = "a.safetensors", ["z"] = "b.safetensors" };

    [Fact]
    public void Indices_are_accepted_exactly_when_they_are_true()
    {
        using var folder = new TemporaryFolder();
        SafetensorsWriter.Write(folder.File("a.safetensors"), [("x", TensorType.U8, [1], [1]), ("y", TensorType.U8, [1], [2])]);
        SafetensorsWriter.Write(folder.File("b.safetensors"), [("z", TensorType.U8, [1], [3])]);
        byte[] good = """{"metadata":{"total_size":3},"weight_map":{"x":"a.safetensors","y":"a.safetensors","z":"b.safetensors"}}"""u8.ToArray();
        int accepted = FuzzRun.AcceptedOfThousand("shard indices", FuzzRun.Mutations(good), index =>
        {
            folder.Write("model.safetensors.index.json", index);
            Checkpoint? checkpoint = null;
            bool opened = FuzzRun.Reads(() => checkpoint = Checkpoint.Open(folder.Path));
            using (checkpoint)
            {
                Dictionary<string, string>? map = ShardIndexRules.Read(index);
                // A shard that the index does not name at all is not looked at.
                bool isTrue = map is not null && map.ToHashSet().SetEquals(Shards.Where(s => map.ContainsValue(s.Value)));
                Assert.Equal(isTrue, opened);
                Assert.Equal(opened ? map!.Keys.Order() : [], (checkpoint?.Names ?? []).Order());
            }

            return opened;
        });
        Assert.InRange(accepted, 5, 500);
    }
}
