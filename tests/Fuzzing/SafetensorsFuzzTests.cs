using System.Text;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Models;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Fuzzing;

/// <summary>Safetensors headers and files, broken at random: the reader and the slow validator accept the same ones and read the same from them.</summary>
[Collection(nameof(Alone))]
public sealed class SafetensorsFuzzTests
{
    // Beside the good header: empty tensors between others, a scalar, escapes, one tensor of everything, white space.
    private static readonly byte[][] Headers =
    [
        .. new[]
        {
            SafetensorsBytes.GoodHeader,
            """{"w":{"dtype":"U8","shape":[4,8],"data_offsets":[0,32]}}""",
            """{"e":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},"s":{"dtype":"F64","shape":[],"data_offsets":[0,8]},"f":{"dtype":"I8","shape":[3,0],"data_offsets":[8,8]},"t":{"dtype":"I16","shape":[2,2,3],"data_offsets":[8,32]}}""",
            """{"\u0061\"\\":{"data_offsets":[16,32],"shape":[1,1,1,1,1,1,1,16],"dtype":"F8_E4M3"},"é🙂":{"shape":[2],"dtype":"U64","data_offsets":[0,16]},"__metadata__":{"":"","ключ":"\n"}}  """,
        }.Select(Encoding.UTF8.GetBytes),
    ];

    // A limit of the reader's, no rule of the format.
    private const string LongName = "name of 2,000 bytes";

    [Fact]
    public void Headers_are_accepted_exactly_when_the_rules_are_kept()
    {
        int accepted = FuzzRun.AcceptedOfThousand("safetensors headers", FuzzRun.Mutations(Headers), header =>
        {
            SafetensorsHeader? read = null;
            bool good = FuzzRun.Reads(() => read = SafetensorsHeader.Parse("f", header, SafetensorsBytes.GoodDataBytes));
            Agree(SafetensorsRules.Read(header, SafetensorsBytes.GoodDataBytes), read?.Tensors, read?.Metadata);
            return good;
        });

        // Names, metadata and white space may change; most else may not.
        Assert.InRange(accepted, 20, 500);
    }

    [Fact]
    public void Files_are_accepted_exactly_when_the_rules_are_kept()
    {
        using var folder = new TemporaryFolder();
        Func<Random, byte[]> headers = FuzzRun.Mutations(Headers);
        int accepted = FuzzRun.AcceptedOfThousand("safetensors files", random => Framed(headers(random), random), bytes =>
        {
            string path = folder.Write("m", bytes);
            SafetensorsFile? read = null;
            bool good = FuzzRun.Reads(() => read = SafetensorsFile.Open(path));
            using (read)
            {
                Agree(Rules(bytes), read?.Tensors, read?.Metadata);
                foreach (TensorInfo tensor in read?.Tensors.Values ?? [])
                    Assert.Equal(tensor.ByteLength, read!.Bytes(tensor).Length);
            }

            return good;
        });
        Assert.InRange(accepted, 5, 500);
    }

    [Fact]
    public void The_validator_refuses_every_named_malformed_file_too() =>
        Assert.All(MalformedSafetensors.All, f => Assert.True(Rules(f.Value) is null || f.Key == LongName, f.Key));

    private static void Agree(SafetensorsRules? rules, IReadOnlyDictionary<string, TensorInfo>? tensors, IReadOnlyDictionary<string, string>? metadata)
    {
        Assert.Equal(rules is not null, tensors is not null);
        if (rules is null)
            return;
        Assert.Equal(rules.Metadata, metadata);
        Assert.Equal(rules.Tensors.Count, tensors!.Count);
        foreach ((string name, SafetensorsRules.Tensor expected) in rules.Tensors)
        {
            TensorInfo tensor = tensors[name];
            Assert.Equal((expected.Type, expected.Begin, expected.End - expected.Begin), (tensor.Type.Spelling(), tensor.Offset, tensor.ByteLength));
            Assert.Equal(expected.Shape, tensor.Shape);
        }
    }

    // Mostly right: a length that is off, data cut or too long, bytes of the length flipped.
    private static byte[] Framed(byte[] header, Random random)
    {
        int dataBytes = SafetensorsBytes.GoodDataBytes + (random.Next(4) == 0 ? random.Next(-3, 4) : 0);
        ulong claimed = (ulong)header.Length;
        claimed = random.Next(8) switch
        {
            0 => claimed + (ulong)random.Next(-2, 3),
            1 => claimed ^ (1UL << random.Next(64)),
            2 => (ulong)random.NextInt64(long.MinValue, long.MaxValue),
            _ => claimed,
        };
        byte[] file = SafetensorsBytes.File(header, dataBytes, claimed);
        return random.Next(10) == 0 ? file[..random.Next(file.Length)] : file;
    }

    private static SafetensorsRules? Rules(byte[] file)
    {
        if (file.Length < 8)
            return null;
        UInt128 length = BitConverter.ToUInt64(file);
        return length <= 100_000_000 && length + 8 <= (UInt128)file.Length ? SafetensorsRules.Read(file[8..(8 + (int)length)], file.Length - 8 - (int)length) : null;
    }
}
