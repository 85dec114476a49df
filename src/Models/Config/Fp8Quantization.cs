using System.Text.Json;
using System.Text.Json.Nodes;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// How the linear layers of an FP8 checkpoint are stored: E4M3 weights with one multiplier for every block of
/// <paramref name="BlockN"/> output rows × <paramref name="BlockK"/> input columns.
/// </summary>
/// <param name="BlockN">Output rows of a block, a power of two from 16 to 4096.</param>
/// <param name="BlockK">Input columns of a block, a power of two from 16 to 4096.</param>
/// <param name="ModulesToNotConvert">Module names whose weights stay unquantised, for example <c>lm_head</c>.</param>
public sealed record Fp8Quantization(int BlockN, int BlockK, IReadOnlyList<string> ModulesToNotConvert) : WeightQuantization(ModulesToNotConvert)
{
    private const int MinBlock = 16;
    private const int MaxBlock = 4096;

    /// <inheritdoc/>
    public override WeightFormat Format => WeightFormat.Fp8Block;

    /// <inheritdoc/>
    public override ScaleBlock? Block => new ScaleBlock(BlockN, BlockK);

    internal static Fp8Quantization Read(JsonFields fields, IReadOnlyList<string> kept)
    {
        fields.RequireText("fmt", "e4m3", required: false);
        fields.RequireText("activation_scheme", "dynamic", required: false);
        (int rows, int columns) = ReadBlock(fields);
        return new Fp8Quantization(rows, columns, kept);
    }

    /// <summary>Reads <c>weight_block_size</c>.</summary>
    internal static (int Rows, int Columns) ReadBlock(JsonFields fields)
    {
        // Without the block size a scale cannot be placed; one multiplier for a whole tensor is another format.
        string needed = $"two powers of two from {MinBlock} to {MaxBlock}, output rows first, such as [128, 128]";
        IReadOnlyList<int> block = fields.Ints("weight_block_size", 0, int.MaxValue, acceptOne: false);
        if (!fields.TryGet("weight_block_size", out JsonElement value))
        {
            throw fields.Missing("weight_block_size", needed);
        }

        if (block.Count != 2 || block.Any(b => b < MinBlock || b > MaxBlock || !int.IsPow2(b)))
        {
            throw fields.Wrong("weight_block_size", value, needed);
        }

        return (block[0], block[1]);
    }

    // The keys of the published Qwen3 FP8 checkpoints, so that other programs read what is written.
    internal override JsonObject ToJson() => new()
    {
        ["activation_scheme"] = "dynamic",
        ["fmt"] = "e4m3",
        ["quant_method"] = "fp8",
        ["weight_block_size"] = new JsonArray(BlockN, BlockK),
        ["modules_to_not_convert"] = KeptModules(),
    };
}
