using System.Text.Json.Nodes;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Linear layers in NVFP4: E2M1 codes, two a byte, one E4M3 multiplier a group of 16 input columns
/// (<c>weight_scale</c>) and one float32 multiplier a tensor (<c>weight_scale_2</c>).
/// </summary>
/// <param name="ModulesToNotConvert">Module names whose weights stay unquantised, for example <c>lm_head</c>.</param>
public sealed record Nvfp4Quantization(IReadOnlyList<string> ModulesToNotConvert) : WeightQuantization(ModulesToNotConvert)
{
    /// <summary>Input columns that share an E4M3 multiplier.</summary>
    public const int GroupSize = 16;

    /// <inheritdoc/>
    public override WeightFormat Format => WeightFormat.Nvfp4;

    /// <inheritdoc/>
    public override ScaleBlock? Block => null;

    internal static Nvfp4Quantization Read(JsonFields fields, IReadOnlyList<string> kept)
    {
        fields.Int("group_size", GroupSize, GroupSize);
        return new Nvfp4Quantization(kept);
    }

    internal override JsonObject ToJson() => ToJson("nvfp4", new JsonObject { ["group_size"] = GroupSize });
}
