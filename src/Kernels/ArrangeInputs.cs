using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What <see cref="ArrangeInputs"/> writes, of the stream or graph.</summary>
internal struct ArrangedInputs
{
    /// <summary><see cref="ArrangeInputs.Bytes"/>.</summary>
    public ArrayView<uint> Memory;

    /// <summary>Warps that have arranged their part; zero before and afterwards.</summary>
    public ArrayView<int> Arrived;
}

/// <summary>
/// Brings BF16 x into the order in which <see cref="SkinnyArranging"/> multiplies it by codes of four bits, so that what a warp loads at once lies together: [tile of 8 rows][chunk of 128
/// columns][step of eight codes][lane] 16 bytes. The blocks of a launch arrange a part each and go on with x as it lies, until all parts are there. None waits for another.
/// </summary>
/// <remarks>
/// Whether they are there says a word that the last warp to arrange changes. A warp reads it when the launches before have ended, and again as it multiplies: a different number means that all is there. So it does not matter what
/// number it was: nothing is cleaned up between launches, and a graph can be replayed. A warp that reads it late, when it has changed already, never sees it change and keeps to x as it lies, which has the same bits.
/// </remarks>
internal static class ArrangeInputs
{
    /// <summary>A step of a tile.</summary>
    public const int StepBytes = 32 * 16;

    /// <summary>A chunk of a tile.</summary>
    public const int ChunkBytes = Steps * StepBytes;

    private const int Steps = 4, ChunkColumns = 128, LaneColumns = ChunkColumns / 4;

    // The word that changes, in a line of its own.
    private const int FirstWord = 32;

    /// <summary>Bytes of so many tiles of x, of whole chunks.</summary>
    public static long Bytes(int k, int tiles) => (FirstWord * sizeof(uint)) + ((long)Chunks(k) * tiles * ChunkBytes);

    private static int Chunks(int k) => k / ChunkColumns;

    /// <summary>The word whose number changes when all is arranged.</summary>
    public static uint Word(ArrangedInputs to) => Mem.LoadRelaxed(ref to.Memory[0]);

    /// <summary>What was arranged before the word changed is seen afterwards. A warp, one of whose lanes has seen the change.</summary>
    public static void See(ArrangedInputs from)
    {
        // The change is older than what other lanes read.
        WarpOps.Barrier();
        Mem.Acquire(ref from.Memory[0]);
    }

    /// <summary>The number of the part of x that a warp of the block arranges, or a negative one: so many warps of each block do that a chunk of a tile is left to each.</summary>
    public static int Slot(LinearArgs a, int tiles, int warp) => warp < WarpsOfBlock(a, tiles) ? (warp * Grid.DimX) + Grid.IdxX : -1;

    private static int WarpsOfBlock(LinearArgs a, int tiles) => IntrinsicMath.Min(Group.DimX >> 5, ((Chunks(a.K) * tiles) + Grid.DimX - 1) / Grid.DimX);

    // Of all blocks.
    private static int Parts(LinearArgs a, int tiles) => WarpsOfBlock(a, tiles) * Grid.DimX;

    /// <summary>Arranges a part of x. One warp.</summary>
    public static void Arrange(LinearArgs a, ArrangedInputs to, int tiles, int slot)
    {
        int lane = Group.IdxX & 31, chunks = Chunks(a.K);
        for (int item = slot; item < chunks * tiles; item += Parts(a, tiles))
        {
            int tile = item / chunks, chunk = item - (tile * chunks), row = IntrinsicMath.Min((tile * SkinnyGemm.Columns) + (lane >> 2), a.M - 1);
            long from = (((long)row * a.K) + (chunk * ChunkColumns) + ((lane & 3) * LaneColumns)) >> 1, at = FirstWord + ((long)item * (ChunkBytes / 4)) + (lane * 4);
            ArrayView<uint> x = a.X.Cast<uint>();
            U4 x0 = Mem.LoadGlobal(ref x[from]), x1 = Mem.LoadGlobalAt(ref x[from], 16), x2 = Mem.LoadGlobalAt(ref x[from], 32), x3 = Mem.LoadGlobalAt(ref x[from], 48);
            Mem.StoreGlobal(ref to.Memory[at], FourBitPairs.Arrange(x0));
            Mem.StoreGlobal(ref to.Memory[at + (StepBytes / 4)], FourBitPairs.Arrange(x1));
            Mem.StoreGlobal(ref to.Memory[at + (2 * StepBytes / 4)], FourBitPairs.Arrange(x2));
            Mem.StoreGlobal(ref to.Memory[at + (3 * StepBytes / 4)], FourBitPairs.Arrange(x3));
        }
    }

    /// <summary>Says that a warp's part is there; <paramref name="before"/> is what the word was.</summary>
    public static void Announce(LinearArgs a, ArrangedInputs to, int tiles, uint before)
    {
        // All lanes have stored before one of them counts.
        WarpOps.Barrier();
        if ((Group.IdxX & 31) != 0 || Fence.CountReleased(ref to.Arrived[0]) != Parts(a, tiles) - 1)
            return;
        // All parts are there before the word says so.
        Fence.Device();
        Mem.StoreRelaxed(ref to.Memory[0], before + 1);
        to.Arrived[0] = 0;
    }

    /// <summary>A lane's words of the first tile's first chunk.</summary>
    public static ArrayView<uint> Locate(ArrangedInputs from, int lane)
    {
        int first = FirstWord + (lane * 4);
        return from.Memory.SubView(first, from.Memory.Length - first);
    }

    /// <summary>Words from a tile to the next.</summary>
    public static int TileWords(int k) => Chunks(k) * (ChunkBytes / 4);
}
