using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>
/// Some tokens after random others, in an FP8 cache and in the BF16 cache that it is the quantisation of. The earlier ones are quantised by an oracle; behind the last one the FP8 cache
/// has codes that are NaN and scales that are NaN.
/// </summary>
internal sealed class Fp8CacheCase : IDisposable
{
    private const float Epsilon = 1e-6f;

    private readonly GpuDevice device;
    private readonly int queryHeads, kvHeads, headDim, first, tokens, capacity;
    private readonly BFloat16[] qkv, keys, values;
    private readonly RotaryTable table;

    public Fp8CacheCase(GpuDevice device, int queryHeads, int kvHeads, int headDim, int first, int tokens = 1)
    {
        (this.device, this.queryHeads, this.kvHeads, this.headDim, this.first, this.tokens) = (device, queryHeads, kvHeads, headDim, first, tokens);
        capacity = first + tokens + 3;
        qkv = RandomData.GaussianBf16(tokens * (queryHeads + (2 * kvHeads)) * headDim, 1);
        keys = RandomData.GaussianBf16(kvHeads * capacity * headDim, 7_001);
        values = RandomData.GaussianBf16(kvHeads * capacity * headDim, 93_113);
        table = new RotaryTable(device, headDim, capacity, 10_000);
        Position = first;
    }

    /// <summary>What is given as the first token's position.</summary>
    public int Position { get; init; }

    /// <summary>The projection; <see cref="Run"/> after a change.</summary>
    public BFloat16[] Qkv => qkv;

    /// <summary>What a call left.</summary>
    /// <param name="Output">[tokens, queryHeads, headDim]; of BF16 caches the same.</param>
    /// <param name="Query">The queries, where a kernel of their own made them.</param>
    /// <param name="Keys">[kvHeads, capacity, headDim] of a BF16 cache.</param>
    /// <param name="Values">As Keys.</param>
    /// <param name="Codes">Codes and scales of an FP8 cache.</param>
    public sealed record Result(BFloat16[] Output, BFloat16[] Query, BFloat16[] Keys, BFloat16[] Values, (byte[] Keys, float[] KeyScales, byte[] Values, float[] ValueScales) Codes);

    /// <summary>Head norms, rotary, cache and attention: as one launch of one token, or by the two operators.</summary>
    public Result Run(KvCacheFormat format, bool together)
    {
        using var cache = new KvCache(device, 1, kvHeads, headDim, capacity, format);
        Write(cache);
        using var input = GuardedBuffer<BFloat16>.Input(device, qkv);
        using var position = GuardedBuffer<int>.Input(device, [Position]);
        using GuardedBuffer<BFloat16> y = GuardedBuffer<BFloat16>.Output(device, tokens * queryHeads * headDim), q = GuardedBuffer<BFloat16>.Output(device, tokens * queryHeads * headDim);
        var options = new QkNormRotaryOptions(tokens, queryHeads, table) { Epsilon = Epsilon };
        using var workspace = new DecodeAttentionWorkspace(device, kvHeads, headDim);
        KvLayer layer = cache.Layer(0);
        if (together)
            DecodeAttention.Apply(device.DefaultStream, input.View, position.View, layer, (y.View, workspace), options);
        else
        {
            QkNormRotary.Apply(device.DefaultStream, input.View, position.View, q.View, layer, options);
            Attention.Apply(device.DefaultStream, q.View, layer, position.View, y.View, new AttentionShape(tokens, queryHeads));
        }
        device.Synchronize();
        bool fp8 = format == KvCacheFormat.Fp8;
        return new Result(y.ToArray(), together ? [] : q.ToArray(), fp8 ? [] : CacheContents.Read(layer.Keys), fp8 ? [] : CacheContents.Read(layer.Values), fp8
            ? (CacheContents.Read(layer.Codes.Keys), CacheContents.Read(layer.Codes.KeyScales), CacheContents.Read(layer.Codes.Values), CacheContents.Read(layer.Codes.ValueScales))
            : ([], [], [], []));
    }

    /// <summary>What the codes of a cache should be: those of the rows of its BF16 counterpart.</summary>
    public (byte[] Codes, float[] Scales) Quantized(BFloat16[] rows)
    {
        int most = Math.Min(capacity, Position + tokens);
        var codes = new byte[rows.Length];
        var scales = new float[kvHeads * capacity];
        for (int row = 0; row < scales.Length; row++)
        {
            bool written = row % capacity < most;
            (byte[] Codes, float Scale) fp8 = Row(rows.AsSpan(row * headDim, headDim));
            (written ? fp8.Codes : [.. Enumerable.Repeat((byte)0x7F, headDim)]).CopyTo(codes, row * headDim);
            scales[row] = written ? fp8.Scale : float.NaN;
        }
        return (codes, scales);
    }

    /// <summary>Attention over what an FP8 cache holds, in double precision; <paramref name="query"/> as the operator had it.</summary>
    public double[] Oracle(BFloat16[] query, Result cache)
    {
        var y = new double[tokens * queryHeads * headDim];
        for (int row = 0; row < tokens * queryHeads; row++)
        {
            int length = first + (row / queryHeads) + 1, start = row % queryHeads / (queryHeads / kvHeads) * capacity;
            var scores = new double[length];
            for (int j = 0; j < length; j++)
                for (int d = 0; d < headDim; d++)
                    scores[j] += (float)query[(row * headDim) + d] * Number(cache.Codes.Keys, cache.Codes.KeyScales, start + j, d) / Math.Sqrt(headDim);
            double max = scores.Max(), mass = scores.Sum(s => Math.Exp(s - max));
            for (int j = 0; j < length; j++)
                for (int d = 0; d < headDim; d++)
                    y[(row * headDim) + d] += Math.Exp(scores[j] - max) / mass * Number(cache.Codes.Values, cache.Codes.ValueScales, start + j, d);
        }
        return y;
    }

    public void Dispose() => table.Dispose();

    private double Number(byte[] codes, float[] scales, int row, int column) => MatrixOracle.E4M3[codes[(row * headDim) + column]] * scales[row];

    // Groups of the oracle's are 128 or 32 columns; a row is one group here.
    private static (byte[] Codes, float Scale) Row(ReadOnlySpan<BFloat16> row)
    {
        float largest = 0;
        foreach (BFloat16 x in row)
            largest = float.IsFinite((float)x) ? Math.Max(largest, Math.Abs((float)x)) : largest;
        float scale = largest / 448f > 0 ? largest / 448f : 1;
        var codes = new byte[row.Length];
        for (int i = 0; i < codes.Length; i++)
            codes[i] = Code((float)row[i] / scale);
        return (codes, row.ToArray().Any(BFloat16.IsNaN) ? float.NaN : scale);
    }

    private static byte Code(float x)
    {
        if (float.IsNaN(x))
            return 0x7F;
        int best = 0;
        for (int code = 0; code < 0x7F; code++)
        {
            double distance = Math.Abs(MatrixOracle.E4M3[code] - Math.Min(Math.Abs(x), 448)), least = Math.Abs(MatrixOracle.E4M3[best] - Math.Min(Math.Abs(x), 448));
            if (distance < least || (distance == least && code % 2 == 0))
                best = code;
        }
        return (byte)(best | (float.IsNegative(x) ? 0x80 : 0));
    }

    private void Write(KvCache cache)
    {
        KvLayer layer = cache.Layer(0);
        if (cache.Format == KvCacheFormat.Bf16)
        {
            CacheContents.Write(layer.Keys, Behind(keys));
            CacheContents.Write(layer.Values, Behind(values));
            return;
        }
        foreach ((BFloat16[] rows, ArrayView<byte> codes, ArrayView<float> scales) in new[] { (keys, layer.Codes.Keys, layer.Codes.KeyScales), (values, layer.Codes.Values, layer.Codes.ValueScales) })
        {
            var all = new byte[rows.Length];
            var factors = new float[kvHeads * capacity];
            for (int row = 0; row < factors.Length; row++)
            {
                (byte[] Codes, float Scale) one = row % capacity < first ? Row(rows.AsSpan(row * headDim, headDim)) : ([.. Enumerable.Repeat((byte)0x7F, headDim)], float.NaN);
                one.Codes.CopyTo(all, row * headDim);
                factors[row] = one.Scale;
            }
            CacheContents.Write(codes, all);
            CacheContents.Write(scales, factors);
        }
    }

    private BFloat16[] Behind(BFloat16[] rows)
    {
        BFloat16[] all = [.. rows];
        for (int h = 0; h < kvHeads; h++)
            Array.Fill(all, BFloat16.FromBits(0x7FFF), ((h * capacity) + first) * headDim, (capacity - first) * headDim);
        return all;
    }
}
