using GpuKit.Ilgpu.Kernels.Formats;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A lane's part of a product of <see cref="HopperSweep"/>: its block's rows of W, its warp's turns, and where it reads.</summary>
internal struct HopperSweepPlace
{
    /// <summary>The block's first row of W, its rows and its tiles of 32 of them; the last tile may have rows of the one before.</summary>
    public int FirstRow, Rows, Tiles;

    /// <summary>Pairs of warps, the warp's pair, and which of the pair it is; chunks along K, and how many units (a chunk of a tile) the warp has.</summary>
    public int Pairs, Pair, Side, Chunks, Units;

    /// <summary>Addresses of the multipliers and zero points of the lane's row of the block's first tile, and of what is behind the matrix's last zero points.</summary>
    public long AsideFrom, ZeroPoints, ZerosEnd;

    /// <summary>Bytes from a row's zero points to the next's.</summary>
    public int ZeroStep;

    /// <summary>Shared memory of the warp: its stages of codes, and of what is stored beside them, as an address and as words; and its stages' barriers.</summary>
    public uint Ring, AsideRing, Barriers;
    public ArrayView<uint> Aside;

    public HopperSweepInputPlace Input0, Input1;

    /// <summary>Sums in shared memory: of the block, and the lane's own.</summary>
    public uint Sums, OwnSums;

    /// <summary>Where a lane reads and how much its warp has to do; shared memory is the kernel's to divide.</summary>
    public static HopperSweepPlace Locate<TFormat, TInput>(HopperSkinnyArgs a, int lane, int warp, int warps)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        HopperSweepPlace place = default;
        place.FirstRow = Bound(a.N, Grid.IdxX);
        place.Rows = IntrinsicMath.Min(Bound(a.N, Grid.IdxX + 1), a.N) - place.FirstRow;
        place.Tiles = (place.Rows + SkinnyGemm.Rows - 1) / SkinnyGemm.Rows;
        place.Pairs = warps >> 1;
        place.Side = warp >= place.Pairs ? 1 : 0;
        place.Pair = warp - (place.Side * place.Pairs);
        place.Chunks = a.K / SkinnyGemm.ChunkCodes<TFormat>();
        int turns = (place.Chunks - place.Pair + place.Pairs - 1) / place.Pairs;
        int firsts = (((turns + 1) >> 1) * place.Border(0)) + ((turns >> 1) * place.Border(1));
        place.Units = place.Side == 0 ? firsts : (turns * place.Tiles) - firsts;
        long row = place.FirstRow + lane;
        place.AsideFrom = TFormat.HasGroupScales ? a.Groups + (row * (a.K >> 4)) : a.Scales + (row * a.ScaleColumns * sizeof(float));
        if (TFormat.HasZeroPoints)
        {
            place.ZeroStep = (a.ScaleColumns + 1) >> 1;
            place.ZeroPoints = a.ZeroPoints + (row * place.ZeroStep);
            place.ZerosEnd = a.ZeroPoints + ((long)a.N * place.ZeroStep);
        }
        place.Input0 = HopperSweepInputPlace.Locate<TFormat, TInput>(a, lane, 0);
        place.Input1 = HopperSweepInputPlace.Locate<TFormat, TInput>(a, lane, SkinnyGemm.Columns);
        return place;
    }

    /// <summary>The first tile of the pair's second warp in an even or odd turn.</summary>
    public readonly int Border(int turn) => (Tiles >> 1) + (Tiles & ~turn & 1);

    /// <summary>The first row of a tile in the block.</summary>
    public readonly int TileRow(int tile) => IntrinsicMath.Min(tile * SkinnyGemm.Rows, Rows - SkinnyGemm.Rows);

    // The first row of a block: shares differ by no more than eight rows.
    private static int Bound(int n, int block)
    {
        int shares = (n + HopperSweep.ShareRows - 1) / HopperSweep.ShareRows, whole = shares / Grid.DimX, rest = shares - (whole * Grid.DimX);
        return ((block * whole) + IntrinsicMath.Min(block, rest)) * HopperSweep.ShareRows;
    }
}

/// <summary>Addresses of a lane's words of its row of a tile of x, and of that row's groups' multipliers.</summary>
internal struct HopperSweepInputPlace
{
    public long Row, Groups;

    /// <summary>Rows beyond M are the last one; they are not stored.</summary>
    public static HopperSweepInputPlace Locate<TFormat, TInput>(HopperSkinnyArgs a, int lane, int firstRow)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        long row = IntrinsicMath.Min((lane >> 2) + firstRow, a.M - 1);
        int column = (lane & 3) * (SkinnyGemm.ChunkCodes<TFormat>() / 4);
        HopperSweepInputPlace place;
        place.Row = a.X + (TInput.AreCodes ? ((row * a.K) + column) / 2 : ((row * a.K) + column) * sizeof(ushort));
        place.Groups = a.InputGroups + (((row * a.K) + column) >> 4);
        return place;
    }
}

/// <summary>A turn of a warp: its tiles of a chunk.</summary>
internal struct HopperSweepTurn
{
    /// <summary>The tiles, and the chunk; behind the last turn that is none of the matrix.</summary>
    public int FirstTile, EndTile, Chunk;

    private int number;

    /// <summary>The warp's first turn.</summary>
    public static HopperSweepTurn First(HopperSweepPlace place)
    {
        HopperSweepTurn turn = default;
        turn.Chunk = place.Pair;
        turn.Locate(place);
        if (turn.FirstTile == turn.EndTile)
            turn.Advance(place);
        return turn;
    }

    /// <summary>The next turn in which the warp has anything: of a single tile that is every second one.</summary>
    public void Advance(HopperSweepPlace place)
    {
        int turns = place.Tiles == 1 && FirstTile != EndTile ? 2 : 1;
        number += turns;
        Chunk += turns * place.Pairs;
        Locate(place);
    }

    private void Locate(HopperSweepPlace place)
    {
        int border = place.Border(number);
        FirstTile = place.Side == 0 ? 0 : border;
        EndTile = place.Side == 0 ? border : place.Tiles;
    }
}

/// <summary>A warp's next 32 units, one a lane: in a turn its tiles one after the other, then its next turn.</summary>
internal struct HopperSweepWindow
{
    public const int Units = 32;

    /// <summary>The unit's first byte and row of W.</summary>
    public int Column, Row;

    /// <summary>Where its multipliers are (<see cref="HopperSweepAside.Multiplier"/>), and its zero points: bytes from <see cref="HopperSweepPlace.ZeroPoints"/>.</summary>
    public uint Multiplier, Zeros;

    /// <summary>The window from a unit on; behind the last one it is repeated.</summary>
    public static HopperSweepWindow Of<TFormat, TTiles>(HopperSkinnyArgs a, HopperSweepPlace place, int first)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int unit = IntrinsicMath.Max(IntrinsicMath.Min(first + (Group.IdxX & 31), place.Units - 1), 0);
        // In two turns a warp has as many as the block has tiles.
        int turns = unit / place.Tiles, within = unit - (turns * place.Tiles), border = place.Border(0), evens = place.Side == 0 ? border : place.Tiles - border;
        int odd = within >= evens ? 1 : 0, tile = within - (odd * evens) + (place.Side == 0 ? 0 : place.Border(odd)), row = place.TileRow(tile);
        int chunk = place.Pair + (((2 * turns) + odd) * place.Pairs);
        HopperSweepWindow window;
        window.Column = chunk * SkinnyGemm.ChunkBytes;
        window.Row = place.FirstRow + row;
        window.Multiplier = HopperSweepAside.Multiplier<TFormat, TTiles>(a, chunk, row);
        window.Zeros = TFormat.HasZeroPoints ? (uint)((row * place.ZeroStep) + (HopperSweepAside.Block<TFormat>(a, chunk) >> 1)) : 0;
        return window;
    }
}
