using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Tests.Oracle;

/// <summary>What the tensors of a written checkpoint stand for, by names, types and shapes of its own knowledge.</summary>
internal static class WrittenCheckpoint
{
    /// <summary>Every weight in double precision; the originals say how many columns a row of packed codes has.</summary>
    public static Dictionary<string, double[]> Weights(string folder, CheckpointFormat format, IReadOnlyDictionary<string, double[]> originals)
    {
        using Checkpoint checkpoint = Checkpoint.Open(folder);
        return checkpoint.Names.Where(n => n.EndsWith(".weight", StringComparison.Ordinal)).ToDictionary(n => n, n => Values(checkpoint, n, format, originals[n].Length), StringComparer.Ordinal);
    }

    /// <summary>One stored matrix.</summary>
    public static HostMatrix Matrix(Checkpoint checkpoint, string name, CheckpointFormat format, int values)
    {
        int n = (int)checkpoint.Info(name).Shape[0], k = values / n;
        Assert.Equal([n, checkpoint.Info(name).Type == TensorType.U8 ? (k + 1) / 2 : k], checkpoint.Info(name).Shape);
        byte[] codes = checkpoint.Bytes(name).ToArray();
        switch (checkpoint.Info(name).Type)
        {
            case TensorType.F8E4M3:
                float[] multipliers = Floats(checkpoint, name + "_scale_inv");
                if (!checkpoint.Contains(name + "_residual"))
                    return new HostMatrix(WeightFormat.Fp8Block, n, k, codes, multipliers, format.Block!.Value);
                Assert.Equal((TensorType.F8E4M3, n, k), (checkpoint.Info(name + "_residual").Type, checkpoint.Info(name + "_residual").Shape[0], checkpoint.Info(name + "_residual").Shape[1]));
                Assert.Equal(checkpoint.Info(name + "_scale_inv").Shape, checkpoint.Info(name + "_residual_scale_inv").Shape);
                return new HostMatrix(WeightFormat.Fp8TwoTerm, n, k, [.. codes, .. checkpoint.Bytes(name + "_residual")], [.. multipliers, .. Floats(checkpoint, name + "_residual_scale_inv")], format.Block!.Value);
            case TensorType.U8 when checkpoint.Contains(name + "_scale_2"):
                Assert.Equal((TensorType.F8E4M3, TensorType.F32, 0), (checkpoint.Info(name + "_scale").Type, checkpoint.Info(name + "_scale_2").Type, checkpoint.Info(name + "_scale_2").Shape.Count));
                return new HostMatrix(WeightFormat.Nvfp4, n, k, codes, [MemoryMarshal.Read<float>(checkpoint.Bytes(name + "_scale_2"))], default) { GroupScales = checkpoint.Bytes(name + "_scale").ToArray() };
            case TensorType.U8:
                Assert.Equal(TensorType.BF16, checkpoint.Info(name + "_scale").Type);
                float[] scales = Array.ConvertAll(MemoryMarshal.Cast<byte, BFloat16>(checkpoint.Bytes(name + "_scale")).ToArray(), s => (float)s);
                if (!checkpoint.Contains(name + "_zero_point"))
                    return new HostMatrix(WeightFormat.Int4, n, k, codes, scales, format.Block!.Value);
                int groups = (k + format.Block!.Value.Columns - 1) / format.Block.Value.Columns;
                Assert.Equal((TensorType.U8, n, (groups + 1) / 2), (checkpoint.Info(name + "_zero_point").Type, checkpoint.Info(name + "_zero_point").Shape[0], checkpoint.Info(name + "_zero_point").Shape[1]));
                return new HostMatrix(WeightFormat.Int4Zero, n, k, codes, scales, format.Block.Value) { ZeroPoints = checkpoint.Bytes(name + "_zero_point").ToArray() };
            default:
                return new HostMatrix(WeightFormat.Bf16, n, k, codes, [], default);
        }
    }

    private static float[] Floats(Checkpoint checkpoint, string name)
    {
        Assert.Equal(TensorType.F32, checkpoint.Info(name).Type);
        return MemoryMarshal.Cast<byte, float>(checkpoint.Bytes(name)).ToArray();
    }

    private static double[] Values(Checkpoint checkpoint, string name, CheckpointFormat format, int values) =>
        checkpoint.Info(name).Shape.Count == 2
            ? MatrixOracle.Values(Matrix(checkpoint, name, format, values))
            : Array.ConvertAll(MemoryMarshal.Cast<byte, BFloat16>(checkpoint.Bytes(name)).ToArray(), v => (double)(float)v);
}
