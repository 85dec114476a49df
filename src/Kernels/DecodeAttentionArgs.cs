using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of attention for one token of each of several sequences; shapes are those of one.</summary>
internal struct DecodeAttentionArgs
{
    /// <summary>[QueryHeads + 2·KvHeads, HeadDim] BF16: queries, keys, values.</summary>
    public ArrayView<ushort> Qkv;

    /// <summary>[KvHeads, Capacity, HeadDim] of one layer: BF16, two a word, or codes, four a word.</summary>
    public ArrayView<uint> Keys;

    /// <summary>As Keys.</summary>
    public ArrayView<uint> Values;

    /// <summary>[HeadDim] BF16, unless HasGains is 0.</summary>
    public ArrayView<ushort> QueryGain;

    /// <summary>As QueryGain.</summary>
    public ArrayView<ushort> KeyGain;

    /// <summary>[≥ Capacity, HeadDim / 2] float32.</summary>
    public ArrayView<float> Cos;

    /// <summary>As Cos.</summary>
    public ArrayView<float> Sin;

    /// <summary>[1]; negative for a sequence without a token.</summary>
    public ArrayView<int> Position;

    /// <summary>[QueryHeads, HeadDim] BF16.</summary>
    public ArrayView<ushort> Output;

    /// <summary>[KvHeads, Parts, Slices, 32, 4] float32, workspace: sums of a part, as lanes have them.</summary>
    public ArrayView<float> Sums;

    /// <summary>[KvHeads, Parts, Slices, 4, 4] float32, workspace: largest scores and masses of a part, two heads each.</summary>
    public ArrayView<float> Masses;

    /// <summary>[KvHeads, Slices] workspace, zero between launches: parts that are done.</summary>
    public ArrayView<int> Done;

    /// <summary>Words between the keys of a sequence and those of the next.</summary>
    public long Stride;

    public int KvHeads;
    public int GroupSize;
    public int Capacity;
    public int HasGains;
    public float Epsilon;

    /// <summary>Of scores, log₂ e included.</summary>
    public float Scale;

    /// <summary>[KvHeads, Capacity] float32, where the cache has codes.</summary>
    public ArrayView<float> KeyScales;

    /// <summary>As KeyScales.</summary>
    public ArrayView<float> ValueScales;

    /// <summary>Scales between a sequence and the next.</summary>
    public long ScaleStride;

    /// <summary>Stages of tiles in shared memory.</summary>
    public int Stages;
}

/// <summary>Which tiles of positions a block has: of so many, in so many parts, those from First to before End.</summary>
internal struct AttentionSpan
{
    public int Position, Tiles, Parts, First, End;

    /// <summary>0 where the position lies outside the cache.</summary>
    public int IsInside;
}

/// <summary>The width of a head as a type argument.</summary>
internal interface IHeadWidth
{
    /// <summary>64 columns each.</summary>
    static abstract int Halves { get; }
}

/// <summary>64 columns.</summary>
internal readonly struct Head64 : IHeadWidth
{
    public static int Halves => 1;
}

/// <summary>128 columns.</summary>
internal readonly struct Head128 : IHeadWidth
{
    public static int Halves => 2;
}
