using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>One call of <see cref="Attention"/> over a cache whose unused positions are NaN.</summary>
internal sealed class AttentionCase : IDisposable
{
    private readonly GpuDevice device;
    private readonly KvCache cache;
    private readonly BFloat16[] query;
    private readonly BFloat16[][] keys, values;
    private readonly int tokens, queryHeads, headDim, first;

    public AttentionCase(GpuDevice device, int tokens, int queryHeads, int kvHeads, int headDim, int first, int capacity, AttentionCase? like = null, int fromToken = 0)
    {
        (this.device, this.tokens, this.queryHeads, this.headDim, this.first) = (device, tokens, queryHeads, headDim, first);
        int length = Math.Min(first + tokens, capacity), row = queryHeads * headDim;
        query = like?.query[(fromToken * row)..((fromToken + tokens) * row)] ?? RandomData.GaussianBf16(tokens * row, seed: first, factor: 2);
        keys = [.. Enumerable.Range(0, kvHeads).Select(h => like?.keys[h][..(length * headDim)] ?? RandomData.GaussianBf16(length * headDim, seed: h))];
        values = [.. Enumerable.Range(0, kvHeads).Select(h => like?.values[h][..(length * headDim)] ?? RandomData.GaussianBf16(length * headDim, seed: 99 + h))];
        Position = first;
        cache = new KvCache(device, 1, kvHeads, headDim, capacity);
        CacheContents.Fill(cache, BFloat16.FromBits(0x7FFF));
        Write();
    }

    public int Position { get; init; }

    /// <summary>Queries, <c>[tokens, queryHeads, headDim]</c>.</summary>
    public BFloat16[] Query => query;

    /// <summary>Keys of each KV head, <c>[length, headDim]</c>; <see cref="Write"/> after a change.</summary>
    public BFloat16[][] Keys => keys;

    /// <summary>Values likewise.</summary>
    public BFloat16[][] Values => values;

    public void Write()
    {
        for (int h = 0; h < keys.Length; h++)
        {
            CacheContents.Write(cache.Keys(0).SubView((long)h * cache.Capacity * headDim, keys[h].Length), keys[h]);
            CacheContents.Write(cache.Values(0).SubView((long)h * cache.Capacity * headDim, values[h].Length), values[h]);
        }
    }

    /// <summary>What the operator gives, whichever kernel it chooses.</summary>
    public BFloat16[] Apply(int misalignment = 0) => Run(misalignment, (q, position, y) =>
        Attention.Apply(device.DefaultStream, q, cache.Layer(0), position, y, new(tokens, queryHeads)));

    /// <summary>What the kernel of tiles gives, for any number of tokens.</summary>
    public BFloat16[] ApplyInTiles(int? warps = null) => Run(0, (q, position, y) =>
        FlashAttention.Launch(device.DefaultStream, Attention.CreateTileArgs(q, cache.Layer(0), position, y, new(tokens, queryHeads)), headDim, warps));

    /// <summary>What the kernel for Hopper gives, for any number of tokens.</summary>
    public BFloat16[] ApplyOnHopper() => Run(0, (q, position, y) => HopperFlash.Launch(device.DefaultStream, q, cache.Layer(0), position, y, new(tokens, queryHeads)));

    /// <summary>The operator with its output in place of the queries.</summary>
    public BFloat16[] ApplyInPlace()
    {
        using var q = GuardedBuffer<BFloat16>.Input(device, query);
        using var position = GuardedBuffer<int>.Input(device, [Position]);
        Attention.Apply(device.DefaultStream, q.View, cache.Layer(0), position.View, q.View, new(tokens, queryHeads));
        return q.ToArray();
    }

    /// <summary>
    /// Infinite and NaN values of some columns, and a NaN key, reach the rows that see their positions (three of them at and behind the first token's) and no others, whose bits they leave.
    /// </summary>
    public void AssertInfinitiesReachWhoSeesThem(Func<BFloat16[]> apply)
    {
        const int Early = 3, Infinite = 5, Negative = 14;
        int late = first + 9, key = first + 21, last = headDim - 1, row = queryHeads * headDim;
        BFloat16[] clean = apply();
        values[0][(Early * headDim) + Infinite] = (BFloat16)float.PositiveInfinity;
        values[0][(late * headDim) + Infinite] = (BFloat16)float.NegativeInfinity;
        values[0][(late * headDim) + Negative] = (BFloat16)float.NegativeInfinity;
        values[0][(late * headDim) + last] = BFloat16.FromBits(0x7FC1);
        keys[0][(key * headDim) + 1] = BFloat16.FromBits(0x7FC1);
        Write();
        BFloat16[] y = apply();
        for (int i = 0; i < y.Length; i++)
        {
            int position = first + (i / row), column = i % headDim;
            float expected = position >= key ? float.NaN
                : column == Infinite ? position >= late ? float.NaN : float.PositiveInfinity
                : position < late ? (float)clean[i]
                : column == Negative ? float.NegativeInfinity
                : column == last ? float.NaN : (float)clean[i];
            Assert.Equal(expected, (float)y[i]);
        }
    }

    public double[] Oracle()
    {
        var y = new double[query.Length];
        for (int row = 0; row < tokens * queryHeads; row++)
        {
            int length = first + (row / queryHeads) + 1, head = row % queryHeads / (queryHeads / keys.Length);
            var weights = new double[length];
            for (int j = 0; j < length; j++)
            {
                for (int d = 0; d < headDim; d++)
                    weights[j] += (double)(float)query[(row * headDim) + d] * (float)keys[head][(j * headDim) + d] / Math.Sqrt(headDim);
            }
            double max = weights.Max(), sum = weights.Sum(w => Math.Exp(w - max));
            for (int j = 0; j < length; j++)
            {
                for (int d = 0; d < headDim; d++)
                    y[(row * headDim) + d] += Math.Exp(weights[j] - max) / sum * (float)values[head][(j * headDim) + d];
            }
        }
        return y;
    }

    public void Dispose() => cache.Dispose();

    private BFloat16[] Run(int misalignment, Action<ArrayView<BFloat16>, ArrayView<int>, ArrayView<BFloat16>> apply)
    {
        using var q = GuardedBuffer<BFloat16>.Input(device, query, misalignment);
        using var position = GuardedBuffer<int>.Input(device, [Position]);
        using var y = GuardedBuffer<BFloat16>.Output(device, query.Length);
        apply(q.View, position.View, y.View);
        return y.ToArray();
    }
}
