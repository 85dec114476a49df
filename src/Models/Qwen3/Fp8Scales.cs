using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Models;

/// <summary>The block scales that lie beside a checkpoint's FP8 weights.</summary>
internal sealed class Fp8Scales(Checkpoint checkpoint, Qwen3MoeConfig config)
{
    /// <summary>The block that an FP8 tensor's scales stand for.</summary>
    public ScaleBlock Block(string name)
    {
        if (config.Quantization is not { } quantization)
            throw Fail($"'{name}' is F8_E4M3, but config.json has no 'quantization_config'; the size of the scale blocks is needed");
        try
        {
            return new ScaleBlock(quantization.BlockN, quantization.BlockK);
        }
        catch (ArgumentException e)
        {
            throw new ModelFileException(Qwen3MoeConfig.FileName, $"'weight_block_size' of '{name}': {e.Message}", e);
        }
    }

    /// <summary>All scales of a tensor <c>[rows, k]</c> as float32, and the bytes they take in the file.</summary>
    public (float[] Scales, TensorInfo Info) Read(string name, int rows, int k)
    {
        string scaleName = name + "_scale_inv";
        ScaleBlock block = Block(name);
        if (!checkpoint.Contains(scaleName))
            throw Fail($"'{name}' is F8_E4M3 without '{scaleName}' beside it");
        TensorInfo info = checkpoint.Info(scaleName);
        int rowBlocks = block.RowBlocks(rows), columnBlocks = block.ColumnBlocks(k);
        if (info.Shape.Count != 2 || info.Shape[0] != rowBlocks || info.Shape[1] != columnBlocks)
            throw Fail($"'{name}' is F8_E4M3 [{rows}, {k}] with scales [{string.Join(", ", info.Shape)}]; {block.Rows}×{block.Columns} blocks need [{rowBlocks}, {columnBlocks}]");
        ReadOnlySpan<byte> bytes = checkpoint.Bytes(scaleName);
        float[] scales = info.Type switch
        {
            TensorType.F32 => MemoryMarshal.Cast<byte, float>(bytes).ToArray(),
            TensorType.BF16 => Array.ConvertAll(MemoryMarshal.Cast<byte, BFloat16>(bytes).ToArray(), s => (float)s),
            _ => throw Fail($"'{scaleName}' is {info.Type.Spelling()}; scales must be F32 or BF16"),
        };
        // Checked here and not only where a matrix is written: dequantised to BF16, an infinite scale would be lost in the values.
        int bad = Array.FindIndex(scales, s => !float.IsFinite(s));
        return bad < 0 ? (scales, info) : throw Fail($"'{scaleName}': scale {bad} is {scales[bad]}; scales must be finite");
    }

    /// <summary>The scales of some rows, which start on a block's edge.</summary>
    public static float[] OfRows(float[] scales, int first, int rows, int k, ScaleBlock block)
    {
        int columns = block.ColumnBlocks(k), from = first / block.Rows;
        return scales[(from * columns)..((from + block.RowBlocks(rows)) * columns)];
    }

    private ModelFileException Fail(string problem) => new(Path.GetFileName(checkpoint.Folder), problem);
}
