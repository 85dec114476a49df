using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Quantization;

/// <summary>What is refused in checkpoints of the formats that this project writes, by the tensor's name, with nothing left on the device.</summary>
[Collection(ModelDevices.Collection)]
public sealed class FourBitLoadingTests(ModelDevices devices)
{
    private const string Up = "model.layers.1.mlp.experts.3.up_proj.weight";

    private static readonly Dictionary<string, (string Format, Action<IDictionary<string, StoredTensor>> Damage, string[] Says)> Cases = new()
    {
        ["missing group scales"] = ("nvfp4", t => t.Remove(Up + "_scale"), [Up, "without", "_scale'"]),
        ["missing matrix scale"] = ("nvfp4", t => t.Remove(Up + "_scale_2"), [Up, "_scale_2"]),
        ["wrong shape of group scales"] = ("nvfp4", t => t[Up + "_scale"] = t[Up + "_scale"] with { Shape = [24, 8] }, [Up, "[24, 8]", "[48, 4]"]),
        ["two matrix scales"] = ("nvfp4", t => t[Up + "_scale_2"] = new(TensorType.F32, [2], new byte[8]), [Up, "_scale_2", "[2]"]),
        ["group scales in U8"] = ("nvfp4", t => t[Up + "_scale"] = t[Up + "_scale"] with { Type = TensorType.U8 }, [Up + "_scale", "U8", "F8_E4M3"]),
        ["NaN group scale"] = ("nvfp4", t => t[Up + "_scale"].Bytes[(4 * 2) + 1] = 0xFF, [Up + "_scale", "row 2", "group 1", "NaN"]),
        ["infinite matrix scale"] = ("nvfp4", t => MemoryMarshal.Cast<byte, float>(t[Up + "_scale_2"].Bytes.AsSpan())[0] = float.PositiveInfinity, [Up + "_scale_2", "finite"]),
        ["codes too wide"] = ("nvfp4", t => t[Up] = new(TensorType.U8, [48, 64], new byte[48 * 64]), [Up, "[48, 64]", "[48, 32]"]),
        ["missing scales"] = ("int4-g32", t => t.Remove(Up + "_scale"), [Up, "_scale"]),
        ["wrong shape of scales"] = ("int4-g32", t => t[Up + "_scale"] = t[Up + "_scale"] with { Shape = [96, 1] }, [Up, "[96, 1]", "[48, 2]"]),
        ["NaN scale"] = ("int4-g32", t => t[Up + "_scale"].Bytes.AsSpan(6, 2).Fill(0xFF), [Up + "_scale", "scale 3"]),
        ["scales in F16"] = ("int4-g32", t => t[Up + "_scale"] = t[Up + "_scale"] with { Type = TensorType.F16 }, [Up + "_scale", "F16"]),
        ["zero points"] = ("int4-g32", t => t[Up + "_zero_point"] = new(TensorType.U8, [48, 1], new byte[48]), [Up, "_zero_point", "INT4 zero"]),
        ["missing zero points"] = ("int4-zero-g32", t => t.Remove(Up + "_zero_point"), [Up, "without", "_zero_point'"]),
        ["wrong shape of zero points"] = ("int4-zero-g32", t => t[Up + "_zero_point"] = new(TensorType.U8, [48, 2], new byte[96]), [Up, "_zero_point", "[48, 2]", "[48, 1]"]),
        ["zero points in F8_E4M3"] = ("int4-zero-g32", t => t[Up + "_zero_point"] = t[Up + "_zero_point"] with { Type = TensorType.F8E4M3 }, [Up + "_zero_point", "F8_E4M3", "U8"]),
        ["NaN scale beside zero points"] = ("int4-zero-g32", t => t[Up + "_scale"].Bytes.AsSpan(6, 2).Fill(0xFF), [Up + "_scale", "scale 3"]),
        ["missing residual"] = ("fp8-two-term", t => t.Remove(Up + "_residual"), [Up, "without", "_residual'"]),
        ["missing residual scales"] = ("fp8-two-term", t => t.Remove(Up + "_residual_scale_inv"), [Up, "without", "_residual_scale_inv'"]),
        ["wrong shape of a residual"] = ("fp8-two-term", t => t[Up + "_residual"] = t[Up + "_residual"] with { Shape = [64, 48] }, [Up + "_residual", "[64, 48]", "[48, 64]"]),
        ["wrong shape of residual scales"] = ("fp8-two-term", t => t[Up + "_residual_scale_inv"] = new(TensorType.F32, [2, 1], new byte[8]), [Up + "_residual_scale_inv", "[2, 1]", "[1, 1]"]),
        ["residual in U8"] = ("fp8-two-term", t => t[Up + "_residual"] = t[Up + "_residual"] with { Type = TensorType.U8 }, [Up + "_residual", "U8", "F8_E4M3"]),
        ["NaN in a residual"] = ("fp8-two-term", t => t[Up + "_residual"].Bytes[(64 * 5) + 9] = 0x7F, [Up, "row 5", "column 9", "NaN"]),
        ["infinite residual scale"] = ("fp8-two-term", t => MemoryMarshal.Cast<byte, float>(t[Up + "_residual_scale_inv"].Bytes.AsSpan())[0] = float.PositiveInfinity, [Up + "_residual_scale_inv", "finite"]),
        ["a residual beside one term"] = ("fp8", t => t[Up + "_residual"] = new(TensorType.F8E4M3, [48, 64], new byte[48 * 64]), [Up, "_residual", "FP8 two-term"]),
        ["one expert stored otherwise"] = ("int4-g32", t => t[Up] = new(TensorType.BF16, [48, 64], new byte[48 * 128]), [Up, "BF16", "U8"]),
        ["one FP8 tensor"] = ("int4-g32", t => t[Up] = new(TensorType.F8E4M3, [48, 64], new byte[48 * 64]), [Up, "F8_E4M3"]),
    };

    public static TheoryData<string> Names => [.. Cases.Keys];

    [Theory]
    [MemberData(nameof(Names))]
    public void A_damaged_checkpoint_is_refused_by_the_tensors_name(string name)
    {
        (string format, Action<IDictionary<string, StoredTensor>> damage, string[] says) = Cases[name];
        GpuDevice device = devices.Open(TestDevice.Cpu);
        using TemporaryFolder folder = Damaged(format, damage);
        foreach ((bool toBf16, int staging) in ((bool, int)[])[(false, 0), (true, 0), (false, 1000), (true, 1000)])
        {
            (long, long) before = (device.Ledger.LiveBytes, device.Ledger.LiveBuffers);
            string message = Assert.Throws<ModelFileException>(() => Qwen3Moe.Load(device, folder.File("out"), new LoadOptions { DequantizeToBf16 = toBf16, StagingBytes = staging }, TestContext.Current.CancellationToken)).Message;
            Assert.All(says, part => Assert.Contains(part, message, StringComparison.Ordinal));
            Assert.Equal(before, (device.Ledger.LiveBytes, device.Ledger.LiveBuffers));
        }
    }

    [Fact]
    public void A_matrix_scale_may_be_a_list_of_one_and_every_weight_is_resident_once()
    {
        GpuDevice device = devices.Open(TestDevice.Cpu);
        using TemporaryFolder folder = Damaged("nvfp4", t => t[Up + "_scale_2"] = t[Up + "_scale_2"] with { Shape = [1] });
        using Checkpoint checkpoint = Checkpoint.Open(folder.File("out"));
        long buffers = device.Ledger.LiveBuffers;
        using Qwen3Moe model = Qwen3Moe.Load(device, folder.File("out"), null, TestContext.Current.CancellationToken);
        // Buffers are whole 16-byte words.
        Assert.InRange(model.WeightBytes, checkpoint.TotalBytes, checkpoint.TotalBytes + (16 * (device.Ledger.LiveBuffers - buffers)));
    }

    private static TemporaryFolder Damaged(string format, Action<IDictionary<string, StoredTensor>> damage)
    {
        var folder = new TemporaryFolder();
        using var source = new GeneratedCheckpoint(new CheckpointShape { Block = null });
        CheckpointQuantizer.Quantize(source.Folder, folder.File("out"), CheckpointFormat.Parse(format), cancellation: TestContext.Current.CancellationToken);
        string file = folder.File("out/model.safetensors");
        Dictionary<string, StoredTensor> tensors;
        using (SafetensorsFile written = SafetensorsFile.Open(file))
            tensors = written.Tensors.Values.ToDictionary(t => t.Name, t => new StoredTensor(t.Type, [.. t.Shape], written.Bytes(t).ToArray()));
        damage(tensors);
        SafetensorsWriter.Write(file, tensors.Select(t => (t.Key, t.Value.Type, t.Value.Shape, t.Value.Bytes)));
        return folder;
    }
}
