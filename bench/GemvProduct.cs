using System.Numerics;

namespace GpuKit.Ilgpu.Bench;

/// <summary>Weights in one format times activations in another: what the benchmark times and the report has a column for.</summary>
/// <param name="Format">Format of the weights.</param>
/// <param name="Activation">Format of the activations; null for BF16.</param>
internal readonly record struct GemvProduct(WeightFormat Format, ActivationFormat? Activation = null)
{
    /// <summary>Every product, weight formats with BF16 activations first.</summary>
    public static readonly IReadOnlyList<GemvProduct> All =
    [
        .. WeightFormats.All.Select(f => new GemvProduct(f)),
        new(WeightFormat.Fp8Block, ActivationFormat.Fp8Group128),
        new(WeightFormat.Fp8Block, ActivationFormat.Fp8Group32),
        new(WeightFormat.Nvfp4, ActivationFormat.Nvfp4),
        new(WeightFormat.Int4, ActivationFormat.Int4),
    ];

    /// <summary>As the command line takes it.</summary>
    public string Name => Activation is { } a ? $"{Format}+{a}" : Format.ToString();

    /// <summary>As documents call it.</summary>
    public string Title => Activation switch
    {
        null => Format.Info().Name,
        ActivationFormat.Fp8Group32 => $"FP8 blocks of 32 × {Activation.Value.Info().Name}",
        ActivationFormat.Int4 => $"INT4, a scale a row × {Activation.Value.Info().Name}",
        { } a => $"{Format.Info().Name} × {a.Info().Name}",
    };

    /// <summary>Whether the accumulators are compared on it.</summary>
    public bool ComparesAccumulators => this == new GemvProduct(WeightFormat.Bf16) || this == new GemvProduct(WeightFormat.Fp8Block) || Activation == ActivationFormat.Fp8Group32;

    /// <summary>The scale block of weights with <paramref name="k"/> columns: the format's usual one unless the activations want another.</summary>
    public ScaleBlock Block(int k) => Activation switch
    {
        ActivationFormat.Fp8Group32 => new ScaleBlock(32, 32),
        ActivationFormat.Int4 => new ScaleBlock(1, (int)BitOperations.RoundUpToPowerOf2((uint)Math.Max(k, 32))),
        _ => Format.BlockOr(null),
    };

    /// <summary>Whether a record is of this product.</summary>
    public bool Is(ResultRecord record) => record.Format == Format.ToString() && record.Activation == Activation?.ToString();
}
