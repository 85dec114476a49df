using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Addresses of one layer's weights, in the table that <see cref="DecodeStep"/> reads.</summary>
internal enum DecodeLayerField
{
    /// <summary>[(QueryHeads + 2·KvHeads)·HeadDim, Hidden] codes and their multipliers.</summary>
    QueryKeyValue,
    QueryKeyValueScales,

    /// <summary>[Hidden, QueryHeads·HeadDim].</summary>
    Output,
    OutputScales,

    /// <summary>[Experts, 2·Width, Hidden]: gate rows, then up rows.</summary>
    GateUp,
    GateUpScales,

    /// <summary>[Experts, Hidden, Width].</summary>
    Down,
    DownScales,

    /// <summary>[Experts, Hidden] BF16.</summary>
    Router,

    /// <summary>[Hidden] BF16 each: the gains before attention and before the experts.</summary>
    InputGain,
    ExpertGain,

    /// <summary>How many there are.</summary>
    Count,
}

/// <summary>Arguments of all layers over one token in one launch.</summary>
internal struct DecodeStepArgs
{
    /// <summary>[LayerCount, DecodeLayerField.Count] addresses.</summary>
    public ArrayView<long> Layers;

    /// <summary>[LayerCount, 2, HeadDim] BF16: gains of query and key heads.</summary>
    public ArrayView<ushort> HeadGains;

    /// <summary>[LayerCount, KvHeads, Capacity, HeadDim] BF16, two a word.</summary>
    public ArrayView<uint> Keys;

    /// <summary>As Keys.</summary>
    public ArrayView<uint> Values;

    /// <summary>[≥ Capacity, HeadDim / 2] float32.</summary>
    public ArrayView<float> Cos;

    /// <summary>As Cos.</summary>
    public ArrayView<float> Sin;

    /// <summary>[1].</summary>
    public ArrayView<int> Position;

    /// <summary>[Hidden] float32: the token's residual stream, in and out.</summary>
    public ArrayView<float> Residual;

    /// <summary>[(QueryHeads + 2·KvHeads)·HeadDim] BF16, workspace.</summary>
    public ArrayView<ushort> QueryKeyValue;

    /// <summary>[QueryHeads·HeadDim] BF16, workspace.</summary>
    public ArrayView<ushort> Attended;

    /// <summary>[TopK, Width] BF16, workspace.</summary>
    public ArrayView<ushort> Activated;

    /// <summary>[Experts] workspace, zero between launches: logits before the norm's factor, in units of 2⁻³².</summary>
    public ArrayView<long> RouterSums;

    /// <summary>[LayerCount, Experts] float32: the routers' logits, for whoever looks at them.</summary>
    public ArrayView<float> Logits;

    /// <summary>Workspaces of <see cref="DecodeAttention"/>.</summary>
    public ArrayView<float> PartSums;
    public ArrayView<float> PartMasses;
    public ArrayView<int> PartsDone;

    /// <summary>[DecodeStep.Flags] workspace, zero between launches: how many blocks have ended a phase.</summary>
    public ArrayView<int> Flags;

    public int LayerCount;
    public int Hidden;
    public int KvHeads;

    /// <summary>Query heads of a KV head.</summary>
    public int GroupSize;
    public int Capacity;
    public int Experts;
    public int TopK;
    public int Width;
    public int Normalize;

    /// <summary>log2 of the rows and columns that share a multiplier.</summary>
    public int RowShift;
    public int ColumnShift;

    /// <summary>Slots of the two rings.</summary>
    public int DenseSlots;
    public int ExpertSlots;

    /// <summary>Most rows of a block in one phase.</summary>
    public int MostRows;

    public float Epsilon;

    /// <summary>Of scores, log₂ e included.</summary>
    public float Scale;
}
