using System.Text.Json.Nodes;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Linear layers in INT4: codes −8..7, two a byte, one multiplier (<c>weight_scale</c>) a group of <paramref name="GroupSize"/>
/// input columns; or codes 0..15 with a zero point (<c>weight_zero_point</c>) a group as well.
/// </summary>
/// <param name="GroupSize">Input columns that share a multiplier: 32, 64 or 128.</param>
/// <param name="HasZeroPoints">Whether codes are unsigned with zero points; else they are symmetric.</param>
/// <param name="ModulesToNotConvert">Module names whose weights stay unquantised, for example <c>lm_head</c>.</param>
public sealed record Int4Quantization(int GroupSize, bool HasZeroPoints, IReadOnlyList<string> ModulesToNotConvert) : WeightQuantization(ModulesToNotConvert)
{
    /// <inheritdoc/>
    public override WeightFormat Format => HasZeroPoints ? WeightFormat.Int4Zero : WeightFormat.Int4;

    /// <inheritdoc/>
    public override ScaleBlock? Block => new ScaleBlock(1, GroupSize);

    internal static Int4Quantization Read(JsonFields fields, IReadOnlyList<string> kept)
    {
        int group = fields.Int("group_size", 1, int.MaxValue);
        if (group is not (32 or 64 or 128))
            throw fields.Unsupported("group_size", $"{group}", "32, 64 and 128 are");
        return new Int4Quantization(group, fields.Flag("zero_point", fallback: false), kept);
    }

    internal override JsonObject ToJson() => ToJson("int4", new JsonObject { ["group_size"] = GroupSize, ["zero_point"] = HasZeroPoints });
}
