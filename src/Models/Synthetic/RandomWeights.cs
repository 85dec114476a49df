namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Weights that are random numbers made on the device: about Gaussian with variance 1 / K, so that activations keep their size. A
/// tensor is a function of the seed and its name alone.
/// </summary>
internal sealed class RandomWeights(GpuDevice device, Qwen3MoeConfig config, ulong seed) : IWeightSource
{
    // Logits of a router spread enough that a token has favourites; its rows are alike, so that no expert is every token's.
    private const float RouterFactor = 1.5f;

    private const float GainDeviation = 0.1f;

    private GpuStream Stream => device.DefaultStream;

    /// <inheritdoc/>
    public DeviceBuffer<BFloat16> Gain(string name, int width)
    {
        DeviceBuffer<BFloat16> gain = device.Allocate<BFloat16>(width);
        RandomFill.Gaussian(Stream, gain, SeedOf(name), 1, GainDeviation);
        return gain;
    }

    /// <inheritdoc/>
    public QuantizedMatrix Matrix(string name, int rows, int k) => Stack(WeightFormat.Bf16, k, 1, [(name, rows)]);

    /// <inheritdoc/>
    public FusedLinear Fused(int k, params (string Name, int Rows)[] parts) => Experts(k, 1, _ => parts);

    /// <inheritdoc/>
    public FusedLinear Experts(int k, Func<int, (string Name, int Rows)[]> parts) => Experts(k, config.Experts, parts);

    /// <inheritdoc/>
    public void Complete() => Stream.Synchronize();

    /// <inheritdoc/>
    public void Abandon()
    {
        try
        {
            Complete();
        }
        catch (GpuException)
        {
            // Nothing runs on a lost device.
        }
    }

    /// <summary>One tensor of the checkpoint as a matrix of its own.</summary>
    public QuantizedMatrix Tensor(string name, int rows, int k, bool isKept) => Stack(isKept ? WeightFormat.Bf16 : Format, k, 1, [(name, rows)]);

    private WeightFormat Format => config.Quantization?.Format ?? WeightFormat.Bf16;

    private FusedLinear Experts(int k, int count, Func<int, (string Name, int Rows)[]> parts)
    {
        (string Name, int Rows)[][] all = [.. Enumerable.Range(0, count).Select(parts)];
        var matrices = new List<(QuantizedMatrix, int)>();
        try
        {
            if (CanFuse(all[0]))
            {
                matrices.Add((Stack(Format, k, count, [.. all.SelectMany(p => p)]), 0));
                return new FusedLinear(matrices);
            }
            for (int part = 0, offset = 0; part < all[0].Length; offset += all[0][part].Rows, part++)
            {
                int index = part;
                matrices.Add((Stack(Format, k, count, [.. all.Select(p => p[index])]), offset));
            }
            return new FusedLinear(matrices);
        }
        catch
        {
            matrices.ForEach(m => m.Item1.Dispose());
            throw;
        }
    }

    // As checkpoints are fused: every part but the last ends on a block's edge, and no multiplier is a whole tensor's.
    private bool CanFuse((string Name, int Rows)[] parts) =>
        parts.Length == 1 || (!Format.HasGroupScales() && (!Format.IsScaled() || parts[..^1].All(p => p.Rows % Format.BlockOr(config.Quantization?.Block).Rows == 0)));

    private QuantizedMatrix Stack(WeightFormat format, int k, int count, (string Name, int Rows)[] parts)
    {
        int n = parts.Sum(p => p.Rows) / count;
        var matrix = new QuantizedMatrix(device, format, n, k, count, format.IsScaled() ? config.Quantization?.Block : null);
        try
        {
            int slab = 0, row = 0;
            foreach ((string name, int rows) in parts)
            {
                RandomFill.Weights(Stream, matrix, slab, (row, rows), SeedOf(name), Deviation(name, k));
                row += rows;
                if (row == n)
                    (slab, row) = (slab + 1, 0);
            }
            return matrix;
        }
        catch
        {
            matrix.Dispose();
            throw;
        }
    }

    // The embedding is the residual stream itself; everything else multiplies K numbers of about its size.
    private static float Deviation(string name, int k) =>
        name.StartsWith("model.embed_tokens", StringComparison.Ordinal) ? 1
        : name.EndsWith(".mlp.gate.weight", StringComparison.Ordinal) ? RouterFactor / MathF.Sqrt(k)
        : 1 / MathF.Sqrt(k);

    // FNV-1a of the name, under the model's seed.
    private ulong SeedOf(string name)
    {
        ulong hash = 14695981039346656037ul ^ (seed * 0x9E3779B97F4A7C15ul);
        foreach (char c in name)
            hash = (hash ^ c) * 1099511628211ul;
        return hash ^ (hash >> 29);
    }
}
