using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A lane's part of a product of <see cref="SkinnySweep"/>: its block's rows of W, its warp's turns, and where it reads.</summary>
internal struct SweepPlace
{
    /// <summary>The block's first row of W, its rows and its tiles of 32 of them; the last tile may have rows of the one before.</summary>
    public int FirstRow, Rows, Tiles;

    /// <summary>Pairs of warps, the warp's pair, which of the pair it is, and how many units (a chunk of a tile) it has.</summary>
    public int Pairs, Pair, Side, Units;

    /// <summary>32-bit words of codes, multipliers, and bytes of zero points from a row that a lane reads to the next, which is eight further on.</summary>
    public int WordStep, ScaleStep, ZeroStep;

    /// <summary>The lane's words of its first row of the block, their groups' multipliers or zero points.</summary>
    public ArrayView<uint> Codes;
    public ArrayView<byte> Groups, ZeroPoints;

    /// <summary>The block's multipliers (<see cref="SweepAside"/>), and the lane's first.</summary>
    public ArrayView<uint> Scales;
    public int Scale;

    public SkinnyInputPlace Input0, Input1;

    /// <summary>Shared memory: of the block, and the warp's lane's own.</summary>
    public uint Sums, OwnSums;

    /// <summary>The first tile of the pair's second warp in an even or odd turn.</summary>
    public readonly int Border(int turn) => (Tiles >> 1) + (Tiles & ~turn & 1);

    /// <summary>The first row of a tile in the block.</summary>
    public readonly int TileRow(int tile) => IntrinsicMath.Min(tile * SkinnyGemm.Rows, Rows - SkinnyGemm.Rows);
}

/// <summary>A warp's next 32 units, one a lane: in a turn its tiles one after the other, then its next turn.</summary>
internal struct SweepWindow
{
    /// <summary>Units of a window until the next begins: two are loaded ahead.</summary>
    public const int Ahead = 30;

    /// <summary>In <see cref="Sums"/>: the turn's first unit.</summary>
    public const uint Begins = 1;

    /// <summary>Distances from the lane's first word, and multiplier; and from its first zero point, in half bytes.</summary>
    public uint Word, Scale, Zero;

    /// <summary>The chunk, and bytes from the warp's first sums.</summary>
    public uint Chunk, Sums;

    /// <summary>The window from a unit on; behind the last it is repeated.</summary>
    public static SweepWindow Of<TFormat, TTiles>(LinearArgs a, SweepPlace place, int first)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int unit = IntrinsicMath.Max(IntrinsicMath.Min(first + (Group.IdxX & 31), place.Units - 1), 0);
        // In two turns a warp has as many as the block has tiles.
        int turns = unit / place.Tiles, within = unit - (turns * place.Tiles), border = place.Border(0), evens = place.Side == 0 ? border : place.Tiles - border;
        int odd = within >= evens ? 1 : 0, number = within - (odd * evens);
        int tile = number + (place.Side == 0 ? 0 : place.Border(odd)), row = place.TileRow(tile);
        // A warp without units reads what is there.
        int chunk = IntrinsicMath.Min(place.Pair + (((2 * turns) + odd) * place.Pairs), (a.K / SkinnyGemm.ChunkCodes<TFormat>()) - 1);
        SweepWindow window = default;
        window.Chunk = (uint)chunk;
        window.Word = (uint)((row * (place.WordStep >> 3)) + (chunk * SkinnyGemm.ChunkWords));
        int block = (chunk * SkinnyGemm.ChunkCodes<TFormat>()) >> a.ColumnShift;
        window.Scale = (uint)((row * (place.ScaleStep >> 3)) + block);
        window.Zero = (uint)((row * (place.ZeroStep >> 2)) + block);
        window.Sums = (uint)(tile * SweepSums.SlotBytes<TTiles>()) + (number == 0 ? Begins : 0);
        return window;
    }
}
