namespace GpuKit.Ilgpu.Models;

/// <summary>How a written checkpoint stores its linear layers: a weight format with a block size, under the name that commands take.</summary>
/// <param name="Name">The name, for example <c>int4-g64</c>.</param>
/// <param name="Format">The weight format.</param>
/// <param name="Block">What shares a scale; null where the format has none or its own.</param>
public sealed record CheckpointFormat(string Name, WeightFormat Format, ScaleBlock? Block)
{
    /// <summary>Every format that can be written; what is listed here is offered, tested and measured.</summary>
    public static IReadOnlyList<CheckpointFormat> All { get; } =
    [
        new("bf16", WeightFormat.Bf16, null),
        new("fp8", WeightFormat.Fp8Block, ScaleBlock.Square128),
        new("fp8-32", WeightFormat.Fp8Block, new ScaleBlock(32, 32)),
        new("fp8-two-term", WeightFormat.Fp8TwoTerm, ScaleBlock.Square128),
        new("nvfp4", WeightFormat.Nvfp4, null),
        new("int4", WeightFormat.Int4, ScaleBlock.Group128),
        new("int4-g64", WeightFormat.Int4, new ScaleBlock(1, 64)),
        new("int4-g32", WeightFormat.Int4, new ScaleBlock(1, 32)),
        new("int4-zero", WeightFormat.Int4Zero, ScaleBlock.Group128),
        new("int4-zero-g64", WeightFormat.Int4Zero, new ScaleBlock(1, 64)),
        new("int4-zero-g32", WeightFormat.Int4Zero, new ScaleBlock(1, 32)),
    ];

    /// <summary>The names of <see cref="All"/>.</summary>
    public static string Names { get; } = string.Join('|', All.Select(f => f.Name));

    /// <summary>Finds a format by its name.</summary>
    /// <exception cref="ArgumentException">There is no such format; the message lists those there are.</exception>
    public static CheckpointFormat Parse(string name) =>
        All.FirstOrDefault(f => f.Name == name) ?? throw new ArgumentException($"'{name}' is no format; there are {Names}.", nameof(name));

    /// <summary>The section of <c>config.json</c>; null for a format without one.</summary>
    internal WeightQuantization? Quantization(IReadOnlyList<string> kept) => Format switch
    {
        WeightFormat.Bf16 => null,
        WeightFormat.Fp8Block => new Fp8Quantization(Block!.Value.Rows, Block.Value.Columns, kept),
        WeightFormat.Nvfp4 => new Nvfp4Quantization(kept),
        WeightFormat.Int4 or WeightFormat.Int4Zero => new Int4Quantization(Block!.Value.Columns, Format == WeightFormat.Int4Zero, kept),
        WeightFormat.Fp8TwoTerm => new Fp8TwoTermQuantization(Block!.Value.Rows, Block.Value.Columns, kept),
        _ => throw new InvalidOperationException($"Checkpoints have no format {Format}."),
    };
}
