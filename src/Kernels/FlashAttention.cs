using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of attention in tiles.</summary>
internal struct FlashAttentionArgs
{
    /// <summary>[Tokens, QueryHeads, HeadDim] BF16, two a word.</summary>
    public ArrayView<uint> Query;

    /// <summary>[KvHeads, Capacity, HeadDim] BF16 of one layer, two a word; rows are whole 16-byte words.</summary>
    public ArrayView<uint> Keys;

    /// <summary>As Keys.</summary>
    public ArrayView<uint> Values;

    /// <summary>As Query.</summary>
    public ArrayView<uint> Output;

    /// <summary>[1]: position of the first token.</summary>
    public ArrayView<int> Position;

    public int Tokens;
    public int QueryHeads;
    public int KvHeads;
    public int GroupSize;
    public int Capacity;

    /// <summary>What scores are multiplied by, times log₂ e.</summary>
    public float Scale;

    /// <summary>What the rows follow from.</summary>
    public readonly FlashTokens Rows()
    {
        FlashTokens rows;
        rows.First = Position[0];
        rows.Tokens = Tokens;
        rows.QueryHeads = QueryHeads;
        rows.GroupSize = GroupSize;
        rows.Capacity = Capacity;
        return rows;
    }
}

/// <summary>A lane's online softmax of two rows: their largest scores so far, their masses, and the sums of their values.</summary>
internal struct FlashState<TOutputs>
    where TOutputs : struct
{
    public FlashRows Largest;

    /// <summary>X and Y of row g, Z and W of row g + 8.</summary>
    public F4 Mass;

    public TOutputs Outputs;
}

/// <summary>
/// <see cref="Attention"/> of many tokens on tensor cores, in tiles, after FlashAttention-2: neither scores nor weights ever leave registers.
/// </summary>
/// <remarks>
/// The rows of a KV head are its query heads of the first token, those of the second, and so on: a group shares keys, and a block the narrow band where
/// some of its rows see a key and others do not. A block has 16 rows a warp and walks the positions from 0 in tiles, the next on its way into
/// shared memory while one is multiplied. Queries are the 16-row operand of both products: scores are, exponentiated and rounded, the operand of the second
/// without moving between lanes. Tiles begin at multiples of their width and a warp's rows have sums of their own, so a row's bits depend on its query and
/// what it sees alone. Blocks with the most tiles are launched first.
/// </remarks>
internal static class FlashAttention
{
    public const int WarpRows = 16;
    public const int MostWarps = 8;

    public static void Run<TQueries, TScores, TOutputs>(FlashAttentionArgs a)
        where TQueries : struct, IFlashQueries<TQueries>
        where TScores : struct, IFlashSums<TScores>
        where TOutputs : struct, IFlashSums<TOutputs>
    {
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        ArrayView<int> found = SharedMemory.Allocate<int>(1);
        if (Group.IdxX == 0)
            found[0] = 0;
        int lane = Group.IdxX & 31, blockRows = (Group.DimX >> 5) * WarpRows;
        int blockRow = ((Grid.DimX / a.KvHeads) - 1 - (Grid.IdxX / a.KvHeads)) * blockRows;
        int kvHead = FlashTiles.KvHead(a);
        FlashTokens tokens = a.Rows();
        FlashSpan block = FlashSpan.Of(tokens, blockRow, blockRows), warp = FlashSpan.Of(tokens, blockRow + ((Group.IdxX >> 5) * WarpRows), WarpRows);
        int upperRow = warp.Row + (lane >> 2), lowerRow = upperRow + 8, column = (lane & 3) * 2;
        // A lane's first column is 2t: its columns count from there.
        int upperLength = tokens.Length(upperRow) - column, lowerLength = tokens.Length(lowerRow) - column;
        TQueries queries = TQueries.Load(a.Query, tokens.Word(kvHead, upperRow, TOutputs.Columns) + (lane & 3), tokens.Word(kvHead, lowerRow, TOutputs.Columns) + (lane & 3));
        FlashState<TOutputs> state = default;
        state.Largest.Upper = float.NegativeInfinity;
        state.Largest.Lower = float.NegativeInfinity;

        int tileWords = FlashTiles.TileBytes(TScores.Columns, TOutputs.Columns) >> 1, stage = 0;
        ArrayView<ushort> halves = shared.Cast<ushort>();
        int keyPlace = FlashTiles.KeyPlace(lane, TOutputs.Columns) >> 1, valuePlace = FlashTiles.ValuePlace(lane, TOutputs.Columns) >> 1;
        if (block.End > 0)
            FlashTiles.Copy<TScores, TOutputs>(a, shared, 0, 0, block.End);
        for (int start = 0; start < block.End; start += TScores.Columns)
        {
            CpAsync.WaitAll();
            // Everyone's copies of this tile are complete, and everyone has read the stage that is filled next.
            Block.Barrier();
            if (start + TScores.Columns < block.End)
                FlashTiles.Copy<TScores, TOutputs>(a, shared, 1 - stage, start + TScores.Columns, block.End);
            ArrayView<ushort> keys = halves.SubView(2 * stage * tileWords, tileWords), values = halves.SubView(((2 * stage) + 1) * tileWords, tileWords);
            bool sees = start < warp.End;
            TScores weights = default;
            if (sees)
            {
                TQueries.Score(queries, ref weights, keys.SubView(keyPlace, 8), 0, TOutputs.Columns);
                if (start + TScores.Columns > warp.AllSee)
                    TScores.Mask(ref weights, 0, upperLength - start, lowerLength - start);
                ToWeights(ref weights, ref state, a.Scale);
            }
            // Where a weight is zero because its row does not see the position, an infinite value or NaN must not be multiplied by it.
            if (start + TScores.Columns > block.AllSee && FlashInfinities.Exist<TScores, TOutputs>(values, found, start + 1))
            {
                if (sees)
                    FlashInfinities.Add<TScores, TOutputs>(values, ref state.Outputs, tokens.Length(upperRow) - start, tokens.Length(lowerRow) - start);
                Block.Barrier(); // all have read them before they are replaced
                FlashInfinities.Remove<TScores, TOutputs>(values);
                Block.Barrier(); // all are replaced before they are multiplied
            }
            if (sees)
                TScores.Weigh(weights, ref state.Outputs, ref state.Mass, values.SubView(valuePlace, 8), 0, TOutputs.Columns);
            stage = 1 - stage;
        }
        FlashRows inverse;
        // A row that sees nothing has no mass: 0 / 0 makes it NaN.
        inverse.Upper = 1f / state.Mass.X;
        inverse.Lower = 1f / state.Mass.Z;
        TOutputs.Multiply(ref state.Outputs, inverse);
        int rows = a.Tokens * a.GroupSize;
        TOutputs.Store(state.Outputs, a.Output, lane & 3, upperRow < rows ? tokens.Word(kvHead, upperRow, TOutputs.Columns) : -1, lowerRow < rows ? tokens.Word(kvHead, lowerRow, TOutputs.Columns) : -1);
    }

    // Scores become weights relative to the largest score so far, and what was summed before is scaled down to it.
    private static void ToWeights<TScores, TOutputs>(ref TScores scores, ref FlashState<TOutputs> state, float scale)
        where TScores : struct, IFlashSums<TScores>
        where TOutputs : struct, IFlashSums<TOutputs>
    {
        FlashRows largest = TScores.Largest(scores, state.Largest), decay, shift;
        largest.Upper = OverPositions(largest.Upper);
        largest.Lower = OverPositions(largest.Lower);
        decay.Upper = Fast.Ex2((state.Largest.Upper - largest.Upper) * scale);
        decay.Lower = Fast.Ex2((state.Largest.Lower - largest.Lower) * scale);
        shift.Upper = largest.Upper * scale;
        shift.Lower = largest.Lower * scale;
        state.Largest = largest;
        TScores.Exponentiate(ref scores, scale, shift);
        TOutputs.Multiply(ref state.Outputs, decay);
        state.Mass = FlashUnit.Scaled(state.Mass, decay);
    }

    // Over the four lanes that have other positions of the same row.
    private static float OverPositions(float x)
    {
        x = Fast.Max(x, WarpOps.ShuffleXor(x, 1));
        return Fast.Max(x, WarpOps.ShuffleXor(x, 2));
    }
}
