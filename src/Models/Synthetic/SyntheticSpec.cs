using System.Globalization;

namespace GpuKit.Ilgpu.Models;

/// <summary>A network to be made of random weights: a published shape by name, as <c>synth:NAME[,layers=N][,seed=S]</c>.</summary>
/// <param name="Name">A name of <see cref="KnownConfigs"/>.</param>
/// <param name="Config">The shape.</param>
/// <param name="Seed">Of the random numbers.</param>
public sealed record SyntheticSpec(string Name, Qwen3MoeConfig Config, ulong Seed)
{
    /// <summary>What such a specification starts with.</summary>
    public const string Prefix = "synth:";

    /// <summary>Reads a specification, with or without its prefix.</summary>
    /// <exception cref="ArgumentException">There is no such shape or option; the message says what there is.</exception>
    public static SyntheticSpec Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        string[] parts = (text.StartsWith(Prefix, StringComparison.Ordinal) ? text[Prefix.Length..] : text).Split(',');
        Qwen3MoeConfig config = KnownConfigs.Get(parts[0]);
        ulong seed = 1;
        foreach (string part in parts[1..])
        {
            string[] sides = part.Split('=');
            string value = sides.Length == 2 ? sides[1] : "";
            if (sides[0] == "layers" && int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int layers) && layers > 0)
                config = config with { Layers = layers, MlpOnlyLayers = [.. config.MlpOnlyLayers.Where(l => l < layers)] };
            else if (sides[0] == "seed" && ulong.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out ulong number))
                seed = number;
            else
                throw new ArgumentException($"'{part}' is no option of a synthetic model; there are layers=N and seed=S.", nameof(text));
        }
        return new SyntheticSpec(parts[0], config, seed);
    }
}
