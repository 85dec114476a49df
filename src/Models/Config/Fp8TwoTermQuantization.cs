using System.Text.Json.Nodes;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Linear layers in two-term FP8: E4M3 codes and, as a second tensor (<c>weight_residual</c>), E4M3 codes of what they leave over,
/// each with one multiplier for every block of <paramref name="BlockN"/> output rows × <paramref name="BlockK"/> input columns.
/// </summary>
/// <param name="BlockN">Output rows of a block, a power of two from 16 to 4096.</param>
/// <param name="BlockK">Input columns of a block, a power of two from 16 to 4096.</param>
/// <param name="ModulesToNotConvert">Module names whose weights stay unquantised, for example <c>lm_head</c>.</param>
public sealed record Fp8TwoTermQuantization(int BlockN, int BlockK, IReadOnlyList<string> ModulesToNotConvert) : WeightQuantization(ModulesToNotConvert)
{
    internal const string Name = "fp8-two-term";

    /// <inheritdoc/>
    public override WeightFormat Format => WeightFormat.Fp8TwoTerm;

    /// <inheritdoc/>
    public override ScaleBlock? Block => new ScaleBlock(BlockN, BlockK);

    internal static Fp8TwoTermQuantization Read(JsonFields fields, IReadOnlyList<string> kept)
    {
        (int rows, int columns) = Fp8Quantization.ReadBlock(fields);
        return new Fp8TwoTermQuantization(rows, columns, kept);
    }

    internal override JsonObject ToJson() => ToJson(Name, new JsonObject { ["weight_block_size"] = new JsonArray(BlockN, BlockK) });
}
