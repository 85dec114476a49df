using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Whether there are positions that not all rows see in the tiles of a loop.</summary>
internal interface IFlashEdges
{
    static abstract bool Exist { get; }
}

/// <summary>All rows see all positions.</summary>
internal readonly struct FlashInside : IFlashEdges
{
    public static bool Exist => false;
}

/// <summary>Some rows do not see some positions.</summary>
internal readonly struct FlashEdge : IFlashEdges
{
    public static bool Exist => true;
}

/// <summary>A lane's online softmax of two rows in <see cref="HopperFlashSums"/>: the largest scores so far, and its part of the masses.</summary>
internal struct HopperFlashState
{
    public F2 Largest, Mass;

    /// <summary>What the sums of earlier tiles are to be multiplied by.</summary>
    public F2 Decay;

    /// <summary>Positions that the lane's rows see, counted from its first column of the first tile.</summary>
    public int UpperLength, LowerLength;
}

/// <summary>The multiplying warpgroups of <see cref="HopperFlash"/>.</summary>
internal static class HopperFlashSums
{
    // Meeting points: one a warpgroup for itself, one a warpgroup for its turn.
    private const uint OwnMeeting = 1, OwnTurn = 3;

    // Sixty-four columns of the queries and of a tile's keys further.
    private const ulong QueryHalf = HopperFlash.QuerySlabBytes >> 4, KeyHalf = HopperFlash.SlabBytes >> 4;

    public static void Consume(HopperFlashArgs a, in HopperFlashBlock block, uint shared)
    {
        int warpgroup = (Group.IdxX >> 7) - 1, row = block.Span.Row + (warpgroup * HopperFlash.WarpgroupRows);
        int upperRow = row + (((Group.IdxX >> 5) & 3) * 16) + (Warp.LaneIdx >> 2), column = (Warp.LaneIdx & 3) * 2;
        HopperFlashState state = default;
        state.Largest.X = float.NegativeInfinity;
        state.Largest.Y = float.NegativeInfinity;
        state.UpperLength = block.Tokens.Length(upperRow) - column;
        state.LowerLength = block.Tokens.Length(upperRow + 8) - column;
        uint queries = shared + HopperFlash.QueryPlace(warpgroup), meeting = OwnMeeting + (uint)warpgroup;
        HopperFlashRows.Load(a, block, row, queries);
        // All of the warpgroup's queries are there.
        Warpgroup.Meet(meeting);
        if (warpgroup == 1)
            Warpgroup.GiveTurn(OwnTurn);
        WgmmaFlash.Clear();
        Mbarrier.Wait(shared + HopperFlash.KeysFull(0), 0);
        Wgmma.Fence();
        Score(queries, shared + HopperFlash.KeyPlace(0));
        Wgmma.Commit();
        Wgmma.Wait(0);
        Release(shared + HopperFlash.KeysEmpty(0));
        if (block.FirstEdge == 0)
            WgmmaFlash.Mask(state.UpperLength, state.LowerLength);
        Weigh(ref state, a.Scale);
        WgmmaFlash.Round();
        int tile = 1, edge = IntrinsicMath.Min(IntrinsicMath.Max(block.FirstEdge, 1), block.Tiles);
        for (; tile < edge; tile++)
            Take<FlashInside>(a, block, ref state, tile, queries, shared);
        for (; tile < block.Tiles; tile++)
            Take<FlashEdge>(a, block, ref state, tile, queries, shared);
        HopperFlashEdges.Await(block, tile - 1, shared);
        Wgmma.Fence();
        WgmmaFlash.Multiply(WgmmaFlash.Descriptor(shared + HopperFlash.ValuePlace(tile - 1)));
        Wgmma.Commit();
        // A row that sees nothing has scores of −∞ only, which makes it NaN.
        float upper = 1f / OverPositions(state.Mass.X), lower = 1f / OverPositions(state.Mass.Y);
        Wgmma.Wait(0);
        WgmmaFlash.Scale(upper, lower);
        HopperFlashRows.Store(a, block, row, (queries, shared + HopperFlash.FoundPlace()), meeting);
    }

    // Scores of a tile and, meanwhile, the sums of the one before.
    private static void Take<TEdges>(HopperFlashArgs a, in HopperFlashBlock block, ref HopperFlashState state, int tile, uint queries, uint shared)
        where TEdges : struct, IFlashEdges
    {
        uint warpgroup = (uint)(Group.IdxX >> 7) - 1;
        Mbarrier.Wait(shared + HopperFlash.KeysFull(tile), HopperFlash.Parity(tile));
        Warpgroup.AwaitTurn(OwnTurn + warpgroup);
        Wgmma.Fence();
        Score(queries, shared + HopperFlash.KeyPlace(tile));
        Wgmma.Commit();
        if (TEdges.Exist)
            HopperFlashEdges.Await(block, tile - 1, shared);
        else
            Mbarrier.Wait(shared + HopperFlash.ValuesFull(tile - 1), HopperFlash.Parity(tile - 1));
        WgmmaFlash.Multiply(WgmmaFlash.Descriptor(shared + HopperFlash.ValuePlace(tile - 1)));
        Wgmma.Commit();
        Warpgroup.GiveTurn(OwnTurn + 1 - warpgroup);
        // The scores are there; the sums are not yet.
        Wgmma.Wait(1);
        Release(shared + HopperFlash.KeysEmpty(tile));
        if (TEdges.Exist)
            WgmmaFlash.Mask(state.UpperLength - (tile << HopperFlash.TileShift), state.LowerLength - (tile << HopperFlash.TileShift));
        Weigh(ref state, a.Scale);
        Wgmma.Wait(0);
        Release(shared + HopperFlash.ValuesEmpty(tile - 1));
        // New weights take the place of those that have been multiplied.
        WgmmaFlash.Round();
        // Seldom after the first tiles: then all factors are 1.
        if (WarpOps.Any(state.Decay.X != 1f || state.Decay.Y != 1f ? 1u : 0u) != 0)
            WgmmaFlash.Scale(state.Decay.X, state.Decay.Y);
    }

    private static void Score(uint queries, uint keys)
    {
        ulong q = Wgmma.Descriptor(queries), k = Wgmma.Descriptor(keys);
        Wgmma.MultiplyPartBf16N128(q, k, 0);
        Wgmma.MultiplyPartBf16N128(q + QueryHalf, k + KeyHalf, 1);
    }

    // Scores become weights relative to the largest score so far; what was summed before is to be scaled down to it.
    private static void Weigh(ref HopperFlashState state, float scale)
    {
        F2 largest = WgmmaFlash.Largest(state.Largest.X, state.Largest.Y);
        largest.X = MaxOverPositions(largest.X);
        largest.Y = MaxOverPositions(largest.Y);
        state.Decay.X = Fast.Ex2((state.Largest.X - largest.X) * scale);
        state.Decay.Y = Fast.Ex2((state.Largest.Y - largest.Y) * scale);
        state.Largest = largest;
        WgmmaFlash.Exponentiate(scale, largest.X * scale, largest.Y * scale);
        state.Mass.X *= state.Decay.X;
        state.Mass.Y *= state.Decay.Y;
        F2 sum = WgmmaFlash.SumParts();
        state.Mass.X += sum.X;
        state.Mass.Y += sum.Y;
    }

    // Every warp has read the stage: one arrival a warp.
    private static void Release(uint barrier)
    {
        if (Warp.LaneIdx == 0)
            Mbarrier.Arrive(barrier);
    }

    // Over the four lanes that have other positions of the same row: the largest, and the sum.
    private static float MaxOverPositions(float x)
    {
        x = Fast.Max(x, WarpOps.ShuffleXor(x, 1));
        return Fast.Max(x, WarpOps.ShuffleXor(x, 2));
    }

    private static float OverPositions(float x)
    {
        x = Fast.Add(x, WarpOps.ShuffleXor(x, 1));
        return Fast.Add(x, WarpOps.ShuffleXor(x, 2));
    }
}
