using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// What a block of <see cref="HopperMixedGemm"/> does, one turn after another: the first half of the steps of a tile that the next block finishes, tiles of its own, or those and the second
/// half of a tile that the block before has begun.
/// </summary>
/// <remarks>
/// Where every block has had as many tiles as the others and no more than one for every second block is left, two blocks share each of these: at most half a tile more for each. What is begun is
/// begun first and what is finished is finished last, with tiles in between, so that nobody waits for long; and since blocks start in the order of their numbers, the one that is waited for
/// always runs. A tile is still summed step by step, by one block after the other: that it is cut changes no bit.
/// </remarks>
internal struct HopperMixedTurns
{
    // In place of the number of the block's next own tile.
    private const int Begins = -1;

    private int next;
    private bool finishes;

    /// <summary>The tile of the turn.</summary>
    public HopperMixedTiles Tile;

    /// <summary>Its steps: from the first to before the end.</summary>
    public int First, End;

    /// <summary>Number of the block's tile among those that are shared, if it has one.</summary>
    public static int Shared => Grid.IdxX >> 1;

    /// <summary>Whether another block has done the steps before.</summary>
    public readonly bool IsContinued => First > 0;

    /// <summary>Whether another block does the rest.</summary>
    public readonly bool IsToBeContinued(HopperMixedArgs a) => End < a.Steps;

    /// <summary>Before the first turn.</summary>
    public void Start<TRows>(HopperMixedArgs a)
        where TRows : struct, IRowMap
    {
        Tile.Start<TRows>(a);
        bool shares = !TRows.IsGrouped && Shared < a.SharedTiles, isFirst = (Grid.IdxX & 1) == 0;
        next = shares && isFirst ? Begins : Grid.IdxX;
        finishes = shares && !isFirst;
    }

    /// <summary>Goes to the next turn; false behind the last one.</summary>
    public bool Next<TRows>(HopperMixedArgs a)
        where TRows : struct, IRowMap
    {
        First = 0;
        End = a.Steps;
        int number = next;
        if (next == Begins)
        {
            number = a.WholeTiles + Shared;
            End = a.Steps >> 1;
            next = Grid.IdxX;
        }
        else if (next < a.WholeTiles)
        {
            next += Grid.DimX;
        }
        else if (finishes)
        {
            number = a.WholeTiles + Shared;
            First = a.Steps >> 1;
            finishes = false;
        }
        else
        {
            return false;
        }
        return Tile.Find<TRows>(a, number);
    }
}
