using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// What is stored beside the weights for a unit of <see cref="HopperSweep"/>: a row's eight E4M3 multipliers or one float32, and the word that has its zero point.
/// </summary>
/// <remarks>
/// Each row's are in a line of its own, and as a copy of a lane's (cp.async) a wavefront of L1's data pipe: as many as of all other loads and stores of the unit together. With two tiles of x, where that pipe holds up everything
/// (88 % of its cycles), the copy engine brings multipliers instead, 16 bytes a row of which 8 or 4 are needed. With one tile the engine would be what holds up.
/// </remarks>
internal static class HopperSweepAside
{
    /// <summary>Rows of a unit that a lane's four are apart.</summary>
    public const int RowStep = 8;

    /// <summary>Multipliers of a unit that the copy engine brings.</summary>
    public const int MappedBytes = MappedRowBytes * SkinnyGemm.Rows;

    /// <summary>A row of them, a multiple of which each begins at in the matrix.</summary>
    public const int MappedRowBytes = 16;

    private const int CopiedBytes = 8 * SkinnyGemm.Rows, ZeroBytes = sizeof(uint) * SkinnyGemm.Rows;

    /// <summary>Whether the copy engine brings the multipliers.</summary>
    public static bool AreMapped(int inputTiles) => inputTiles == 2;

    /// <summary>Whether anything is copied by lanes.</summary>
    public static bool AreCopied<TFormat, TTiles>()
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles => TFormat.HasZeroPoints || !AreMapped(TTiles.Count);

    /// <summary>Shared memory of a stage: multipliers, then zero points; of a float32 and a zero point 8 bytes a row where lanes copy both.</summary>
    public static int StageBytes(int inputTiles) => AreMapped(inputTiles) ? MappedBytes + ZeroBytes : CopiedBytes;

    // Bytes from a row's multipliers to the next's.
    private static int RowBytes<TFormat, TTiles>()
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles => AreMapped(TTiles.Count) ? MappedRowBytes : TFormat.HasGroupScales ? 8 : sizeof(float);

    /// <summary>Copies what a lane's row has, by distances from <see cref="HopperSweepPlace.AsideFrom"/> and <see cref="HopperSweepPlace.ZeroPoints"/>.</summary>
    public static void Copy<TFormat, TTiles>(HopperSweepPlace place, (uint Multipliers, uint Zeros) from, int stage)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int at = stage * StageBytes(TTiles.Count) / sizeof(uint), lane = Group.IdxX & 31;
        if (!AreMapped(TTiles.Count))
        {
            if (TFormat.HasGroupScales)
                CpAsync.Copy8From(ref place.Aside[at + (lane * 2)], place.AsideFrom + from.Multipliers, 8);
            else
                CpAsync.Copy4From(ref place.Aside[at + lane], place.AsideFrom + from.Multipliers);
        }
        if (TFormat.HasZeroPoints)
        {
            long word = (place.ZeroPoints + from.Zeros) & ~3L;
            CpAsync.CopyPartOf4From(ref place.Aside[at + (SkinnyGemm.Rows * RowBytes<TFormat, TTiles>() / sizeof(uint)) + lane], word, (int)IntrinsicMath.Min(place.ZerosEnd - word, sizeof(uint)));
        }
    }

    /// <summary>What multiplies a lane's codes of a unit or their sums, and their zero points.</summary>
    public static void Load<TFormat, TTiles>(HopperSkinnyArgs a, HopperSweepPlace place, (int Chunk, int Tile) unit, int stage, ref SkinnyChunk w)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int lane = Group.IdxX & 31, step = RowStep * RowBytes<TFormat, TTiles>();
        uint start = place.AsideRing + (uint)(stage * StageBytes(TTiles.Count)), at = start + (uint)((lane >> 2) * RowBytes<TFormat, TTiles>());
        if (TFormat.HasGroupScales)
        {
            at += (uint)((lane & 3) * 2);
            if (AreMapped(TTiles.Count))
                at += (uint)((unit.Chunk & 1) * 8);
            w.Operand0 = SharedWindow.LoadHalf(at);
            w.Operand1 = SharedWindow.LoadHalf(at + (uint)step);
            w.Operand2 = SharedWindow.LoadHalf(at + (uint)(2 * step));
            w.Operand3 = SharedWindow.LoadHalf(at + (uint)(3 * step));
            return;
        }
        int block = Block<TFormat>(a, unit.Chunk);
        if (AreMapped(TTiles.Count))
            at += (uint)((block & 3) * sizeof(float));
        w.Scale0 = SharedWindow.LoadWord(at);
        w.Scale1 = SharedWindow.LoadWord(at + (uint)step);
        w.Scale2 = SharedWindow.LoadWord(at + (uint)(2 * step));
        w.Scale3 = SharedWindow.LoadWord(at + (uint)(3 * step));
        if (TFormat.HasZeroPoints)
        {
            uint zeros = start + (uint)((SkinnyGemm.Rows * RowBytes<TFormat, TTiles>()) + ((lane >> 2) * sizeof(uint)));
            // Of rows eight apart bytes are whole words apart.
            int row = place.FirstRow + place.TileRow(unit.Tile) + (lane >> 2);
            int shift = (8 * (((int)a.ZeroPoints + (row * place.ZeroStep) + (block >> 1)) & 3)) + (4 * (block & 1));
            w.Operand0 = (SharedWindow.LoadWord(zeros) >> shift) & 15;
            w.Operand1 = (SharedWindow.LoadWord(zeros + (RowStep * sizeof(uint))) >> shift) & 15;
            w.Operand2 = (SharedWindow.LoadWord(zeros + (2 * RowStep * sizeof(uint))) >> shift) & 15;
            w.Operand3 = (SharedWindow.LoadWord(zeros + (3 * RowStep * sizeof(uint))) >> shift) & 15;
        }
    }

    /// <summary>Where a unit's multipliers are: bytes from <see cref="HopperSweepPlace.AsideFrom"/>, or the first column of the 16 bytes that have them.</summary>
    public static uint Multiplier<TFormat, TTiles>(HopperSkinnyArgs a, int chunk, int row)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int column = TFormat.HasGroupScales ? chunk * (SkinnyGemm.ChunkCodes<TFormat>() >> 4) : Block<TFormat>(a, chunk), bytes = TFormat.HasGroupScales ? 1 : sizeof(float);
        if (AreMapped(TTiles.Count))
            return (uint)(column & -(MappedRowBytes / bytes));
        return (uint)(((row * (TFormat.HasGroupScales ? a.K >> 4 : a.ScaleColumns)) + column) * bytes);
    }

    /// <summary>The number of a chunk's block of columns.</summary>
    public static int Block<TFormat>(HopperSkinnyArgs a, int chunk)
        where TFormat : struct, IStreamedFormat => (chunk * SkinnyGemm.ChunkCodes<TFormat>()) >> a.ScaleColumnShift;
}
