using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// The second half of a Mixture-of-Experts layer for at most 16 tokens: r[t] += Σ_j p[t, j] · Wdown(expert of (t, j)) · a[t·k + j], float32 sums.
/// </summary>
/// <remarks>
/// A block owns 16 columns of the residual stream and goes through all experts that any token chose, in ascending order, each read
/// once; a warp multiplies the same chunks of every expert. So the order of a token's sum depends on its own experts alone: those of
/// the others add nothing to its column. A pair's weight multiplies a chunk's sums, and the warps add up in shared memory, in warp order. In
/// a graph the launch before this one is <see cref="ExpertGateUp"/>, which releases it after having waited: routing is older, or announced by that launch, and the first weights are requested
/// before this kernel waits. One token's experts are taken in the order in which they were chosen.
/// </remarks>
internal static class ExpertDown
{
    /// <summary>Most (token, expert) pairs.</summary>
    public const int MostPairs = ExpertGateUp.MostTokens * Router.MaxTopK;

    /// <summary>Warps of a block for K columns: all have the same number of chunks.</summary>
    public static int Warps(int chunks, int most)
    {
        int warps = IntrinsicMath.Min(chunks, most);
        while (chunks % warps != 0)
            warps--;
        return warps;
    }

    /// <summary>Bytes of the table of pairs: [expert of the batch][token], with ids, weights and ranks before it.</summary>
    private static int TableBytes(int pairs, int tokens) => ((4 * pairs) + (pairs * tokens)) * sizeof(int);

    /// <summary>Where the rows of inputs begin, if they are in shared memory: on a 16-byte boundary.</summary>
    private static int RowStart(int pairs, int tokens) => (TableBytes(pairs, tokens) + 15) & ~15;

    private static int PartialStart<TInputs>(int pairs, int tokens, int k)
        where TInputs : struct, ITileInputs => RowStart(pairs, tokens) + (TInputs.IsOneRow ? 2 * pairs * k : 0);

    /// <summary>Shared memory of a block besides: a counter.</summary>
    public const int StaticBytes = sizeof(int);

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes<TInputs, TTiles>(int warps, int pairs, int tokens, int k)
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles => PartialStart<TInputs>(pairs, tokens, k) + (warps * TTiles.Count * TileStream.Sums * sizeof(float));

    public static void Run<TFormat, TInputs, TTiles>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles
    {
        ArrayView<int> count = SharedMemory.Allocate<int>(1);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int pairs = a.Tokens * a.TopK, k = a.Weights.K;
        int partialStart = PartialStart<TInputs>(pairs, a.Tokens, k);
        ArrayView<float> partials = shared.SubView(partialStart, shared.Length - partialStart).Cast<float>();
        ExpertTable table = default;
        table.Experts = shared.SubView(0, pairs * sizeof(int)).Cast<int>();
        table.Weights = shared.SubView(pairs * sizeof(int), pairs * sizeof(int)).Cast<float>();
        table.Ids = shared.SubView(2 * pairs * sizeof(int), pairs * sizeof(int)).Cast<int>();
        table.Firsts = shared.SubView(3 * pairs * sizeof(int), pairs * sizeof(int)).Cast<int>();
        table.Pairs = shared.SubView(4 * pairs * sizeof(int), pairs * a.Tokens * sizeof(int)).Cast<int>();
        table.Count = count;
        if (TInputs.IsNormed)
            table.Await(a);
        else
            table.Fill(a);
        ArrayView<uint> rows = TInputs.IsOneRow ? shared.SubView(RowStart(pairs, a.Tokens), 2 * pairs * k).Cast<uint>() : a.Activated.Cast<uint>();
        F4 sum0 = default, sum1 = default;
        if (TInputs.IsOneRow)
            sum0 = StreamEight<TFormat>(a, table, rows);
        else
            StreamThree<TFormat, TTiles>(a, table, ref sum0, ref sum1);
        int lane = Group.IdxX & 31, start = (Group.IdxX >> 5) * TTiles.Count * TileStream.Sums;
        TileStream.Publish(partials, start, lane, sum0);
        if (TTiles.Count == 2)
            TileStream.Publish(partials, start + TileStream.Sums, lane, sum1);
        int row = (Grid.IdxX * TileStream.Rows) + (Group.IdxX >> 3);
        bool owns = TInputs.IsOneRow && Group.IdxX < TileStream.Sums && row < a.Weights.N;
        float old = 0;
        if (owns)
            old = a.Residual[row];
        // All warps' sums are there before they are added.
        Group.Barrier();
        if (TInputs.IsOneRow && Group.DimX >= TileStream.Sums)
        {
            // Eight lanes a row, in the first four warps.
            if (Group.IdxX < TileStream.Sums)
            {
                float value = old + TileStream.CollectRow(partials, Group.DimX >> 5);
                if (owns && (Group.IdxX & 7) == 0)
                    a.Residual[row] = value;
            }
            return;
        }
        for (int i = Group.IdxX; i < TTiles.Count * TileStream.Sums; i += Group.DimX)
        {
            int token = ((i >> 7) * TileStream.Columns) + (i & 7), n = (Grid.IdxX * TileStream.Rows) + ((i >> 3) & 15);
            if (token >= a.Tokens || n >= a.Weights.N)
                continue;
            long target = ((long)token * a.Weights.N) + n;
            a.Residual[target] += TileStream.CollectAlone(partials, i, TTiles.Count * TileStream.Sums, Group.DimX >> 5);
        }
    }

    // One token: an item is a chunk of an expert, and as many as a token usually has are on their way before the launch before has ended.
    private static F4 StreamEight<TFormat>(ExpertArgs a, ExpertTable table, ArrayView<uint> rows)
        where TFormat : struct, IStreamedFormat
    {
        ExpertPlace next = FirstPlace<TFormat>(a), own = next;
        int items = table.Count[0] * (next.Chunks / next.Step);
        TilePlace place = TileStream.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, Group.IdxX & 31);
        TileChunk w0 = LoadNext<TFormat>(a, table, place, ref next), w1 = LoadNext<TFormat>(a, table, place, ref next);
        TileChunk w2 = LoadNext<TFormat>(a, table, place, ref next), w3 = LoadNext<TFormat>(a, table, place, ref next);
        TileChunk w4 = LoadNext<TFormat>(a, table, place, ref next), w5 = LoadNext<TFormat>(a, table, place, ref next);
        TileChunk w6 = LoadNext<TFormat>(a, table, place, ref next), w7 = LoadNext<TFormat>(a, table, place, ref next);
        GridDependency.Release();
        GridDependency.Wait();
        uint weight = table.RequestWeight(a);
        TileRow.Copy(a.Activated.Cast<uint>(), rows);
        table.StoreWeights(a, weight);
        Group.Barrier(); // weights and rows are there before anyone multiplies by them
        F4 sum = default;
        int i = 0;
        for (; i + 8 < items; i += 8)
        {
            sum = MultiplyNext<TFormat>(a, table, rows, w0, ref own, sum);
            w0 = LoadNext<TFormat>(a, table, place, ref next);
            sum = MultiplyNext<TFormat>(a, table, rows, w1, ref own, sum);
            w1 = LoadNext<TFormat>(a, table, place, ref next);
            sum = MultiplyNext<TFormat>(a, table, rows, w2, ref own, sum);
            w2 = LoadNext<TFormat>(a, table, place, ref next);
            sum = MultiplyNext<TFormat>(a, table, rows, w3, ref own, sum);
            w3 = LoadNext<TFormat>(a, table, place, ref next);
            sum = MultiplyNext<TFormat>(a, table, rows, w4, ref own, sum);
            w4 = LoadNext<TFormat>(a, table, place, ref next);
            sum = MultiplyNext<TFormat>(a, table, rows, w5, ref own, sum);
            w5 = LoadNext<TFormat>(a, table, place, ref next);
            sum = MultiplyNext<TFormat>(a, table, rows, w6, ref own, sum);
            w6 = LoadNext<TFormat>(a, table, place, ref next);
            sum = MultiplyNext<TFormat>(a, table, rows, w7, ref own, sum);
            w7 = LoadNext<TFormat>(a, table, place, ref next);
        }
        if (i < items)
            sum = MultiplyNext<TFormat>(a, table, rows, w0, ref own, sum);
        if (i + 1 < items)
            sum = MultiplyNext<TFormat>(a, table, rows, w1, ref own, sum);
        if (i + 2 < items)
            sum = MultiplyNext<TFormat>(a, table, rows, w2, ref own, sum);
        if (i + 3 < items)
            sum = MultiplyNext<TFormat>(a, table, rows, w3, ref own, sum);
        if (i + 4 < items)
            sum = MultiplyNext<TFormat>(a, table, rows, w4, ref own, sum);
        if (i + 5 < items)
            sum = MultiplyNext<TFormat>(a, table, rows, w5, ref own, sum);
        if (i + 6 < items)
            sum = MultiplyNext<TFormat>(a, table, rows, w6, ref own, sum);
        if (i + 7 < items)
            sum = MultiplyNext<TFormat>(a, table, rows, w7, ref own, sum);
        return sum;
    }

    // Several tokens: three items are in registers, with their inputs; each is refilled right after it is multiplied.
    private static void StreamThree<TFormat, TTiles>(ExpertArgs a, ExpertTable table, ref F4 sum0, ref F4 sum1)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        ExpertPlace next = FirstPlace<TFormat>(a);
        int items = table.Count[0] * (next.Chunks / next.Step);
        TilePlace place = TileStream.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, Group.IdxX & 31);
        ExpertDownItem w0 = Load<TFormat>(a, table, place, ref next), w1 = Load<TFormat>(a, table, place, ref next);
        ExpertDownItem w2 = Load<TFormat>(a, table, place, ref next);
        GridDependency.Release();
        GridDependency.Wait();
        uint weight = table.RequestWeight(a);
        table.StoreWeights(a, weight);
        w0 = LoadInputs<TFormat, TTiles>(a, table, w0);
        w1 = LoadInputs<TFormat, TTiles>(a, table, w1);
        w2 = LoadInputs<TFormat, TTiles>(a, table, w2);
        Group.Barrier(); // weights are there before anyone multiplies by them
        int i = 0;
        for (; i + 2 < items; i += 3)
        {
            Multiply<TFormat, TTiles>(a, table, w0, ref sum0, ref sum1);
            w0 = LoadInputs<TFormat, TTiles>(a, table, Load<TFormat>(a, table, place, ref next));
            Multiply<TFormat, TTiles>(a, table, w1, ref sum0, ref sum1);
            w1 = LoadInputs<TFormat, TTiles>(a, table, Load<TFormat>(a, table, place, ref next));
            Multiply<TFormat, TTiles>(a, table, w2, ref sum0, ref sum1);
            w2 = LoadInputs<TFormat, TTiles>(a, table, Load<TFormat>(a, table, place, ref next));
        }
        if (i < items)
            Multiply<TFormat, TTiles>(a, table, w0, ref sum0, ref sum1);
        if (i + 1 < items)
            Multiply<TFormat, TTiles>(a, table, w1, ref sum0, ref sum1);
    }

    private static ExpertPlace FirstPlace<TFormat>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat =>
        new() { Chunk = Group.IdxX >> 5, First = Group.IdxX >> 5, Step = Group.DimX >> 5, Chunks = a.Weights.K / TileStream.ChunkCodes<TFormat>() };

    private static TileChunk LoadNext<TFormat>(ExpertArgs a, ExpertTable table, TilePlace place, ref ExpertPlace next)
        where TFormat : struct, IStreamedFormat
    {
        TileChunk loaded = TileStream.Load<TFormat>(a.Weights, place, table.ExpertOf(next.Rank), next.Chunk);
        next.Advance();
        return loaded;
    }

    private static F4 MultiplyNext<TFormat>(ExpertArgs a, ExpertTable table, ArrayView<uint> rows, TileChunk w, ref ExpertPlace own, F4 sum)
        where TFormat : struct, IStreamedFormat
    {
        int pair = table.Pairs[own.Rank];
        TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(rows, ((long)pair * (a.Weights.K >> 1)) + TileStream.InputWord<TFormat>(Group.IdxX & 31), own.Chunk);
        float weight = table.Weights[pair] * TileStream.MatrixScale<TFormat>(a.Weights, table.Experts[own.Rank]);
        own.Advance();
        return TileStream.Multiply<TFormat>(w, x, weight, weight, sum);
    }

    // Past the last item the last expert's chunks are read again; without any expert the first one's, and nothing is done with them.
    private static ExpertDownItem Load<TFormat>(ExpertArgs a, ExpertTable table, TilePlace place, ref ExpertPlace next)
        where TFormat : struct, IStreamedFormat
    {
        int rank = IntrinsicMath.Min(next.Rank, table.Count[0] - 1);
        ExpertDownItem loaded = default;
        loaded.Rank = IntrinsicMath.Max(rank, 0);
        loaded.Chunk = next.Chunk;
        loaded.Weights = LoadNext<TFormat>(a, table, place, ref next);
        return loaded;
    }

    // Requested with the weights: loads return in the order of their requests, and inputs that were asked for when they are multiplied would wait for all weights
    // requested meanwhile. A token that did not choose the expert has zeros for inputs.
    private static ExpertDownItem LoadInputs<TFormat, TTiles>(ExpertArgs a, ExpertTable table, ExpertDownItem item)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        item.Inputs0 = Inputs<TFormat>(a, table, item, 0);
        if (TTiles.Count == 2)
            item.Inputs1 = Inputs<TFormat>(a, table, item, TileStream.Columns);
        return item;
    }

    private static TileInputs Inputs<TFormat>(ExpertArgs a, ExpertTable table, ExpertDownItem item, int firstToken)
        where TFormat : struct, IStreamedFormat
    {
        int lane = Group.IdxX & 31, pair = table.Count[0] == 0 ? -1 : table.PairOf(a, item.Rank, firstToken + (lane >> 2));
        return pair < 0 ? default : TileStream.Inputs<TFormat, DeviceTileMemory>(a.Activated.Cast<uint>(), ((long)pair * (a.Weights.K >> 1)) + TileStream.InputWord<TFormat>(lane), item.Chunk);
    }

    private static void Multiply<TFormat, TTiles>(ExpertArgs a, ExpertTable table, ExpertDownItem item, ref F4 sum0, ref F4 sum1)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        float scale = TileStream.MatrixScale<TFormat>(a.Weights, table.Experts[item.Rank]);
        sum0 = MultiplyTile<TFormat>(a, table, item, (item.Inputs0, 0), scale, sum0);
        if (TTiles.Count == 2)
            sum1 = MultiplyTile<TFormat>(a, table, item, (item.Inputs1, TileStream.Columns), scale, sum1);
    }

    // A token that did not choose the expert has a zero weight.
    private static F4 MultiplyTile<TFormat>(ExpertArgs a, ExpertTable table, ExpertDownItem item, (TileInputs Inputs, int FirstToken) tile, float scale, F4 sum)
        where TFormat : struct, IStreamedFormat
    {
        int column = tile.FirstToken + ((Group.IdxX & 3) * 2);
        int pair0 = table.PairOf(a, item.Rank, column), pair1 = table.PairOf(a, item.Rank, column + 1);
        float weight0 = pair0 < 0 ? 0 : table.Weights[pair0] * scale, weight1 = pair1 < 0 ? 0 : table.Weights[pair1] * scale;
        return TileStream.Multiply<TFormat>(item.Weights, tile.Inputs, weight0, weight1, sum);
    }
}

/// <summary>One lane's part of a chunk of an expert's rows: weights, and the inputs of each tile of x unless they are in shared memory.</summary>
internal struct ExpertDownItem
{
    public TileChunk Weights;
    public TileInputs Inputs0, Inputs1;
    public int Rank, Chunk;
}

/// <summary>One warp's place in its sequence: chunks Chunk, Chunk + Step, … of the first expert, then of the next.</summary>
internal struct ExpertPlace
{
    public int Rank, Chunk, First, Step, Chunks;

    public void Advance()
    {
        Chunk += Step;
        Rank += Chunk >= Chunks ? 1 : 0;
        Chunk = Chunk >= Chunks ? First : Chunk;
    }
}
