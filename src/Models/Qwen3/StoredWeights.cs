using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Models;

/// <summary>Finds out how a checkpoint's weights are stored and reads the scales and zero points that belong to them, refusing by name what does not fit.</summary>
internal sealed class StoredWeights(Checkpoint checkpoint, Qwen3MoeConfig config)
{
    /// <summary>The format of a tensor, from its type and, where that is not enough, from <c>quantization_config</c>.</summary>
    public WeightFormat Format(string name)
    {
        TensorInfo info = checkpoint.Info(name);
        return info.Type switch
        {
            TensorType.BF16 => WeightFormat.Bf16,
            TensorType.F8E4M3 => Quantization(info, q => q is Fp8Quantization or Fp8TwoTermQuantization, "the size of the scale blocks").Format,
            TensorType.U8 => Quantization(info, q => q is Nvfp4Quantization or Int4Quantization, "the four-bit format").Format,
            _ => throw Fail($"'{name}' is {info.Type.Spelling()}; weights must be BF16, F8_E4M3 with block scales, or U8 with two four-bit codes a byte"),
        };
    }

    /// <summary>The block that a tensor's scales stand for; null where the format has none or its own.</summary>
    public ScaleBlock? Block(string name)
    {
        if (!Format(name).IsScaled())
            return null;
        try
        {
            return config.Quantization!.Block;
        }
        catch (ArgumentException e)
        {
            throw new ModelFileException(Qwen3MoeConfig.FileName, $"'weight_block_size' of '{name}': {e.Message}", e);
        }
    }

    /// <summary>Finds a tensor that stands for <c>[n, k]</c>, and reads its scales.</summary>
    public StoredMatrix Open(string name, int n, int k)
    {
        var stored = new StoredMatrix(checkpoint, Require(name, n, k), n, k) { Format = Format(name), Block = Block(name) };
        RefuseBeside(stored, WeightTensors.ZeroPoints, WeightFormat.Int4Zero);
        RefuseBeside(stored, WeightTensors.Residual, WeightFormat.Fp8TwoTerm);
        return stored.Format switch
        {
            WeightFormat.Bf16 => stored,
            WeightFormat.Nvfp4 => WithGroupScales(stored, name),
            WeightFormat.Int4 => WithScales(stored, name + WeightTensors.GroupScales),
            WeightFormat.Int4Zero => WithZeroPoints(WithScales(stored, name + WeightTensors.GroupScales)),
            WeightFormat.Fp8TwoTerm => WithResidual(WithScales(stored, name + WeightTensors.BlockScales)),
            _ => WithScales(stored, name + WeightTensors.BlockScales),
        };
    }

    /// <summary>Checks that a tensor has the shape that <c>[n, k]</c> has in its format.</summary>
    public TensorInfo Require(string name, int n, int k)
    {
        TensorInfo info = checkpoint.Info(name);
        // Asked for last: a tensor of another shape is told about its shape, whatever its type.
        long columns = info.Type == TensorType.U8 ? Format(name).RowBytes(k) : k;
        return info.Shape.SequenceEqual([n, columns])
            ? info
            : throw Fail($"'{name}' has the shape [{string.Join(", ", info.Shape)}]; config.json asks for [{n}, {columns}]");
    }

    private WeightQuantization Quantization(TensorInfo info, Predicate<WeightQuantization> fits, string what)
    {
        string problem = $"'{info.Name}' is {info.Type.Spelling()}, but config.json has no 'quantization_config'";
        return config.Quantization is not { } quantization ? throw Fail($"{problem}; {what} is needed")
            : fits(quantization) ? quantization
            : throw Fail($"{problem} for that: it says {quantization.Format.Title()}");
    }

    // Left out of the sum, a residual or a zero point would make every weight another number.
    private void RefuseBeside(StoredMatrix stored, string suffix, WeightFormat owner)
    {
        string name = stored.Info.Name;
        if (stored.Format != owner && checkpoint.Contains(name + suffix))
            throw Fail($"'{name}' is {stored.Format.Title()} by its type and config.json, but has '{name}{suffix}' beside it, which belongs to {owner.Title()}");
    }

    private StoredMatrix WithScales(StoredMatrix stored, string scaleName)
    {
        ScaleBlock block = stored.Format.BlockOr(stored.Block);
        TensorInfo info = Beside(stored, scaleName, $"{block.Rows}×{block.Columns} blocks need", [block.RowBlocks(stored.N), block.ColumnBlocks(stored.K)]);
        ReadOnlySpan<byte> bytes = checkpoint.Bytes(scaleName);
        float[] scales = info.Type switch
        {
            TensorType.F32 => MemoryMarshal.Cast<byte, float>(bytes).ToArray(),
            TensorType.BF16 => Array.ConvertAll(MemoryMarshal.Cast<byte, BFloat16>(bytes).ToArray(), s => (float)s),
            _ => throw Fail($"'{scaleName}' of '{stored.Info.Name}' is {info.Type.Spelling()}; scales must be F32 or BF16"),
        };
        // Checked here and not only where a matrix is written: dequantised to BF16, an infinite scale would be lost in the values.
        int bad = Array.FindIndex(scales, s => !float.IsFinite(s));
        return bad < 0
            ? stored with { Scales = [.. stored.Scales, .. scales], Companions = [.. stored.Companions, info] }
            : throw Fail($"'{scaleName}': scale {bad} is {scales[bad]}; scales must be finite");
    }

    private StoredMatrix WithZeroPoints(StoredMatrix stored)
    {
        string name = stored.Info.Name + WeightTensors.ZeroPoints;
        ScaleBlock block = stored.Format.BlockOr(stored.Block);
        TensorInfo info = Beside(stored, name, $"two zero points a byte, one a group of {block.Columns}, need", [stored.N, (block.ColumnBlocks(stored.K) + 1) / 2]);
        return info.Type == TensorType.U8
            ? stored with { ZeroPoints = checkpoint.Bytes(name).ToArray(), Companions = [.. stored.Companions, info] }
            : throw Fail($"'{name}' is {info.Type.Spelling()}; zero points must be U8");
    }

    private StoredMatrix WithResidual(StoredMatrix stored)
    {
        string name = stored.Info.Name + WeightTensors.Residual;
        TensorInfo info = Beside(stored, name, "a residual needs", [stored.N, stored.K]);
        return info.Type == TensorType.F8E4M3
            ? WithScales(stored with { Residual = info, Companions = [.. stored.Companions, info] }, name + WeightTensors.BlockScales)
            : throw Fail($"'{name}' is {info.Type.Spelling()}; a residual must be F8_E4M3");
    }

    private StoredMatrix WithGroupScales(StoredMatrix stored, string name)
    {
        string groupName = name + WeightTensors.GroupScales, matrixName = name + WeightTensors.MatrixScale;
        ScaleBlock block = stored.Format.BlockOr(null);
        TensorInfo groups = Beside(stored, groupName, $"groups of {block.Columns} need", [stored.N, block.ColumnBlocks(stored.K)]);
        TensorInfo matrix = Beside(stored, matrixName, "the one multiplier is a scalar,", []);
        if (groups.Type != TensorType.F8E4M3 || matrix.Type != TensorType.F32)
            throw Fail($"'{groupName}' is {groups.Type.Spelling()}, '{matrixName}' {matrix.Type.Spelling()}; F8_E4M3 and F32 are needed");
        byte[] groupScales = checkpoint.Bytes(groupName).ToArray();
        int bad = groupScales.AsSpan().IndexOfAny((byte)0x7F, (byte)0xFF);
        if (bad >= 0)
            throw Fail($"'{groupName}': the scale at row {bad / block.ColumnBlocks(stored.K)}, group {bad % block.ColumnBlocks(stored.K)} is NaN");
        float scale = MemoryMarshal.Read<float>(checkpoint.Bytes(matrixName));
        return float.IsFinite(scale)
            ? stored with { Scales = [scale], GroupScales = groupScales, Companions = [groups, matrix] }
            : throw Fail($"'{matrixName}' is {scale}; scales must be finite");
    }

    private TensorInfo Beside(StoredMatrix stored, string tensor, string because, long[] shape)
    {
        string codes = stored.Info.Type.Spelling();
        if (!checkpoint.Contains(tensor))
            throw Fail($"'{stored.Info.Name}' is {codes} without '{tensor}' beside it");
        TensorInfo info = checkpoint.Info(tensor);
        // A scalar may also be written as a list of one.
        return info.Shape.SequenceEqual(shape) || (shape.Length == 0 && info.Shape is [1])
            ? info
            : throw Fail($"'{stored.Info.Name}' is {codes} [{stored.N}, {stored.K}] with '{tensor}' [{string.Join(", ", info.Shape)}]; {because} [{string.Join(", ", shape)}]");
    }

    private ModelFileException Fail(string problem) => new(Path.GetFileName(checkpoint.Folder), problem);
}
