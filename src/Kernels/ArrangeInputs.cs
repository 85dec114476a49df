using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What <see cref="ArrangeInputs"/> writes, of the stream or graph, and who writes it.</summary>
internal struct ArrangedInputs
{
    /// <summary><see cref="ArrangeInputs.Bytes"/>.</summary>
    public ArrayView<uint> Memory;

    /// <summary>The word that says how far it is: <see cref="ArrangeInputs.IsThere"/>.</summary>
    public ArrayView<uint> Progress;

    /// <summary>Warps of a block that arrange, its last ones, where the block has a part for them.</summary>
    public int Warps;

    /// <summary>Parts of x, a warp each.</summary>
    public int Parts;
}

/// <summary>
/// Brings x, BF16 or NVFP4, as 16-bit numbers into the order in which <see cref="SkinnyArranging"/> multiplies it by codes of four bits, so that what a warp loads at once lies together: [tile of 8 rows][chunk of 128
/// columns][step of eight codes][lane] 16 bytes. The first blocks of a launch arrange a part each; all go on with x as it lies, until all parts are there. None waits for another.
/// </summary>
/// <remarks>
/// A word counts the parts in its lower half; the last one makes that zero again and adds one to the upper half. A warp that has found it, when the launches before had ended, with some upper half knows that all is there when
/// the word has reached that and all parts (<see cref="Goal"/>), or is beyond. Nothing is cleaned up between launches, and a graph can be replayed. A warp that reads it for the first time when the upper half has grown already waits for
/// more than comes, and keeps to x as it lies, which has the same bits.
/// </remarks>
internal static class ArrangeInputs
{
    /// <summary>A step of a tile.</summary>
    public const int StepBytes = 32 * 16;

    /// <summary>A chunk of a tile.</summary>
    public const int ChunkBytes = Steps * StepBytes;

    /// <summary>Most parts that the word counts.</summary>
    public const int MostParts = (1 << CountBits) - 1;

    private const int Steps = 4, ChunkColumns = 128, LaneColumns = ChunkColumns / 4, CountBits = 16;

    /// <summary>Bytes of so many tiles of x, of whole chunks.</summary>
    public static long Bytes(int k, int tiles) => (long)Chunks(k) * tiles * ChunkBytes;

    /// <summary>Chunks of x in all tiles: what can be arranged apart.</summary>
    public static int Items(int k, int tiles) => Chunks(k) * tiles;

    private static int Chunks(int k) => k / ChunkColumns;

    /// <summary>How far it is.</summary>
    public static uint Word(ArrangedInputs to) => Mem.LoadRelaxed(ref to.Progress[0]);

    /// <summary>What the word must reach for a warp that has found it as it is.</summary>
    public static uint Goal(ArrangedInputs to, uint word) => (word & ~(uint)MostParts) + (uint)to.Parts;

    /// <summary>Whether all parts are there, by one lane's word for the warp.</summary>
    public static bool IsThere(uint word, uint goal) => (int)WarpOps.Shuffle(word - goal, 0) >= 0;

    /// <summary>What was arranged before the word said so is seen afterwards. A warp, one of whose lanes has read it.</summary>
    public static void See(ArrangedInputs from)
    {
        // The word is older than what other lanes read.
        WarpOps.Barrier();
        Mem.Acquire(ref from.Progress[0]);
    }

    /// <summary>The number of the part of x that a warp of the block arranges, or one beyond the last.</summary>
    public static int Part(ArrangedInputs to, int warp) => warp < to.Warps ? (warp * Grid.DimX) + Grid.IdxX : to.Parts;

    /// <summary>Arranges a part of x. One warp, each lane with its number.</summary>
    public static void Arrange<TFormat, TInput>(LinearArgs a, ArrangedInputs to, int tiles, (int Number, int Lane) part)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        int lane = part.Lane, chunks = Chunks(a.K);
        for (int item = part.Number; item < chunks * tiles; item += to.Parts)
        {
            int tile = item / chunks, chunk = item - (tile * chunks), row = IntrinsicMath.Min((tile * SkinnyGemm.Columns) + (lane >> 2), a.M - 1);
            long from = (((long)row * a.K) + (chunk * ChunkColumns) + ((lane & 3) * LaneColumns)) >> (TInput.AreCodes ? 3 : 1), at = ((long)item * (ChunkBytes / 4)) + (lane * 4);
            ArrayView<uint> x = a.X.Cast<uint>();
            U4 x0 = Mem.LoadGlobal(ref x[from]), x1 = x0, x2 = x0, x3 = x0;
            uint operand = 0;
            if (TInput.AreCodes)
            {
                // A word of eight codes is half a group of 16.
                operand = TFormat.PrepareOperand(Mem.LoadGlobalHalf(ref a.InputScales.Groups[from >> 1]));
            }
            else
            {
                x1 = Mem.LoadGlobalAt(ref x[from], 16);
                x2 = Mem.LoadGlobalAt(ref x[from], 32);
                x3 = Mem.LoadGlobalAt(ref x[from], 48);
            }
            Mem.StoreGlobal(ref to.Memory[at], TInput.Decode<TFormat>(x0, 0, operand));
            Mem.StoreGlobal(ref to.Memory[at + (StepBytes / 4)], TInput.Decode<TFormat>(x1, 1, operand));
            Mem.StoreGlobal(ref to.Memory[at + (2 * StepBytes / 4)], TInput.Decode<TFormat>(x2, 2, operand));
            Mem.StoreGlobal(ref to.Memory[at + (3 * StepBytes / 4)], TInput.Decode<TFormat>(x3, 3, operand));
        }
    }

    /// <summary>Says that a warp's part is there. The warp, each lane with its number.</summary>
    public static void Announce(ArrangedInputs to, int lane)
    {
        // All lanes have stored before one of them counts.
        WarpOps.Barrier();
        if (lane != 0)
            return;
        uint counted = (uint)Fence.CountReleased(ref to.Progress.Cast<int>()[0]);
        if ((counted & MostParts) == to.Parts - 1)
            Mem.AddRelaxed(ref to.Progress[0], MostParts + 1 - (uint)to.Parts);
    }

    /// <summary>Words from a tile to the next.</summary>
    public static int TileWords(int k) => Chunks(k) * (ChunkBytes / 4);
}
