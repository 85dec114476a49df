using System.Text.Json.Nodes;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Linear layers in symmetric INT4: codes −8..7, two a byte, one multiplier (<c>weight_scale</c>) a group of
/// <paramref name="GroupSize"/> input columns.
/// </summary>
/// <param name="GroupSize">Input columns that share a multiplier: 32, 64 or 128.</param>
/// <param name="ModulesToNotConvert">Module names whose weights stay unquantised, for example <c>lm_head</c>.</param>
public sealed record Int4Quantization(int GroupSize, IReadOnlyList<string> ModulesToNotConvert) : WeightQuantization(ModulesToNotConvert)
{
    /// <inheritdoc/>
    public override WeightFormat Format => WeightFormat.Int4;

    /// <inheritdoc/>
    public override ScaleBlock? Block => new ScaleBlock(1, GroupSize);

    internal static Int4Quantization Read(JsonFields fields, IReadOnlyList<string> kept)
    {
        int group = fields.Int("group_size", 1, int.MaxValue);
        if (group is not (32 or 64 or 128))
            throw fields.Unsupported("group_size", $"{group}", "32, 64 and 128 are");
        // With a zero point the codes are unsigned: read as signed ones they would be other numbers.
        if (fields.Flag("zero_point", fallback: false))
            throw fields.Unsupported("zero_point", "true", "false is (symmetric codes)");
        return new Int4Quantization(group, kept);
    }

    internal override JsonObject ToJson() => ToJson("int4", new JsonObject { ["group_size"] = GroupSize, ["zero_point"] = false });
}
