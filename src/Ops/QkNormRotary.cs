using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.QkNormRotary;

namespace GpuKit.Ilgpu;

/// <summary>Sizes and parameters of <see cref="QkNormRotary"/>.</summary>
/// <param name="Tokens">Number of tokens; 0 does nothing.</param>
/// <param name="QueryHeads">Query heads a token, a multiple of the cache's KV heads.</param>
/// <param name="Table">Rotary angles; covers at least the cache's capacity.</param>
public readonly record struct QkNormRotaryOptions(int Tokens, int QueryHeads, RotaryTable Table)
{
    /// <summary><c>[headDim]</c> BF16 gains of the queries' RMSNorm; leave both gains default to skip the norms.</summary>
    public ArrayView<BFloat16> QueryGain { get; init; }

    /// <summary><c>[headDim]</c> BF16 gains of the keys' RMSNorm.</summary>
    public ArrayView<BFloat16> KeyGain { get; init; }

    /// <summary>Added to the mean square of a head.</summary>
    public float Epsilon { get; init; }
}

/// <summary>Between the query-key-value projection and attention: head norms, rotary, and the write to the KV cache.</summary>
public static class QkNormRotary
{
    private const int Threads = 256;

    // 48 registers a thread: for six blocks, which the compiler aims at, it spills; four take longer.
    private static readonly KernelTraits Traits = new(Threads, BlocksPerMultiprocessor: 5);

    internal static readonly KernelDefinition<Kernel.Args> Fused = new(Kernel.Run<Bf16Cells>, Traits);
    internal static readonly KernelDefinition<Kernel.Args> FusedToFp8 = new(Kernel.Run<Fp8Cells>, Traits);

    /// <summary>
    /// Normalises (optional) and rotates the queries into <paramref name="q"/> and the keys into the cache, and copies the
    /// values into the cache, at positions <c>position[0] + t</c>. Float32 inside, rounded once; an FP8 cache gets the rounded numbers quantised, a scale a head. A token whose position lies
    /// outside the cache is not stored and its queries become NaN. Bitwise repeatable; tokens do not influence each other.
    /// </summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="qkv"><c>[tokens, (queryHeads + 2·kvHeads)·headDim]</c> BF16: queries, keys, values.</param>
    /// <param name="position"><c>[1]</c> on the device: position of the first token.</param>
    /// <param name="q"><c>[tokens, queryHeads, headDim]</c> BF16, written; must not overlap <paramref name="qkv"/>.</param>
    /// <param name="layer">Layer of the cache to write.</param>
    /// <param name="options">Sizes, gains and angles.</param>
    /// <exception cref="ArgumentException">A size does not fit, a view is too short, or something lives on another device.</exception>
    public static void Apply(GpuStream stream, ArrayView<BFloat16> qkv, ArrayView<int> position, ArrayView<BFloat16> q, KvLayer layer, in QkNormRotaryOptions options)
    {
        ArgumentNullException.ThrowIfNull(stream);
        KvCache cache = Shape.RequireCache(stream, layer, options.QueryHeads, nameof(layer));
        RequireTable(stream, cache, options);
        Shape.RequireSize(options.Tokens, nameof(options.Tokens));
        int slots = checked(options.QueryHeads + (2 * cache.KvHeads));
        Shape.Require(stream, qkv, options.Tokens, (long)slots * cache.HeadDim, nameof(qkv));
        Shape.Require(stream, q, options.Tokens, (long)options.QueryHeads * cache.HeadDim, nameof(q));
        bool gains = options.QueryGain.Length > 0 || options.KeyGain.Length > 0;
        Shape.Require(stream, options.QueryGain, gains ? 1 : 0, cache.HeadDim, nameof(options.QueryGain));
        Shape.Require(stream, options.KeyGain, gains ? 1 : 0, cache.HeadDim, nameof(options.KeyGain));
        if (options.Tokens == 0)
            return;
        Shape.Require(stream, position, 1, 1, nameof(position));
        bool fp8 = cache.Format == KvCacheFormat.Fp8;
        var args = new Kernel.Args
        {
            Qkv = qkv.Cast<ushort>(),
            Query = q.Cast<ushort>(),
            Keys = fp8 ? layer.Codes.Keys.Cast<ushort>() : layer.Keys.Cast<ushort>(),
            Values = fp8 ? layer.Codes.Values.Cast<ushort>() : layer.Values.Cast<ushort>(),
            // BF16 has no scales.
            KeyScales = fp8 ? layer.Codes.KeyScales : options.Table.Cos,
            ValueScales = fp8 ? layer.Codes.ValueScales : options.Table.Sin,
            // Without gains the kernel reads none; any valid view stands in.
            QueryGain = (gains ? options.QueryGain : q).Cast<ushort>(),
            KeyGain = (gains ? options.KeyGain : q).Cast<ushort>(),
            Cos = options.Table.Cos,
            Sin = options.Table.Sin,
            Position = position,
            Tokens = options.Tokens,
            QueryHeads = options.QueryHeads,
            KvHeads = cache.KvHeads,
            Half = cache.HeadDim / 2,
            Capacity = cache.Capacity,
            HasGains = gains ? 1 : 0,
            Epsilon = options.Epsilon,
        };
        args.HasWords = cache.HeadDim % 4 == 0 && HasWords(args.Qkv, args.Query) && HasWords(args.Keys, args.Values) && HasWords(args.QueryGain, args.KeyGain) ? 1 : 0;
        // A warp a head where the device has that many.
        int threads = LaunchShape.WholeWarps(stream.Device, (long)slots * stream.Device.WarpSize, Threads);
        stream.Device.Launch(fp8 ? FusedToFp8 : Fused, stream, (LaunchShape.Blocks(stream.Device, options.Tokens, 1), 1, 1), threads, 0, args);
    }

    private static bool HasWords(ArrayView<ushort> a, ArrayView<ushort> b) => ((Shape.Address(a) | Shape.Address(b)) & 3) == 0;

    internal static void RequireTable(GpuStream stream, KvCache cache, in QkNormRotaryOptions options)
    {
        RotaryTable table = options.Table ?? throw new ArgumentException("The options have no rotary table.", nameof(options));
        stream.Device.RequireSame(table.Device, nameof(options.Table));
        Shape.RequireEpsilon(options.Epsilon, nameof(options.Epsilon));
        if (table.HeadDim != cache.HeadDim)
            throw new ArgumentException($"The rotary table is for heads of {table.HeadDim}, the cache holds heads of {cache.HeadDim}.", nameof(options));
        if (table.Positions < cache.Capacity)
            throw new ArgumentException($"The rotary table ends at position {table.Positions}, the cache at {cache.Capacity}.", nameof(options));
    }
}
