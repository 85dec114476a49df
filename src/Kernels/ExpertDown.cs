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
/// a graph the launch before this one is <see cref="ExpertGateUp"/>, which releases it after having waited: routing, or the sums that it is made from, is
/// older, and is read and the first weights are requested before this kernel waits.
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

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes<TInputs, TTiles>(int warps, int pairs, int tokens, int k)
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles => PartialStart<TInputs>(pairs, tokens, k) + (warps * TTiles.Count * TileStream.Sums * sizeof(float));

    public static void Run<TFormat, TInputs, TTiles>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles
    {
        Clock.Mark(a.Stamps, Grid.IdxX, 0);
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
        table.Fill<TInputs>(a);
        ArrayView<uint> rows = TInputs.IsOneRow ? shared.SubView(RowStart(pairs, a.Tokens), 2 * pairs * k).Cast<uint>() : a.Activated.Cast<uint>();
        F4 sum0 = default, sum1 = default;
        Stream<TFormat, TInputs, TTiles>(a, table, rows, ref sum0, ref sum1);
        int lane = Group.IdxX & 31, start = (Group.IdxX >> 5) * TTiles.Count * TileStream.Sums;
        TileStream.Publish(partials, start, lane, sum0);
        if (TTiles.Count == 2)
            TileStream.Publish(partials, start + TileStream.Sums, lane, sum1);
        int row = (Grid.IdxX * TileStream.Rows) + (Group.IdxX >> 3);
        bool owns = TInputs.IsOneRow && Group.IdxX < TileStream.Sums && row < a.Weights.N;
        float old = 0;
        if (owns)
            old = a.Residual[row];
        Group.Barrier();
        Clock.Mark(a.Stamps, Grid.IdxX, 3);
        if (TInputs.IsOneRow && Group.DimX >= TileStream.Sums)
        {
            // Eight lanes a row, in the first four warps.
            if (Group.IdxX < TileStream.Sums)
            {
                float value = old + TileStream.CollectRow(partials, Group.DimX >> 5);
                if (owns && (Group.IdxX & 7) == 0)
                    a.Residual[row] = value;
            }
            Clock.Mark(a.Stamps, Grid.IdxX, 4);
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

    // An item is a chunk of an expert. Three are in registers; each is refilled right after it is multiplied.
    private static void Stream<TFormat, TInputs, TTiles>(ExpertArgs a, ExpertTable table, ArrayView<uint> rows, ref F4 sum0, ref F4 sum1)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles
    {
        int warps = Group.DimX >> 5, lane = Group.IdxX & 31;
        var next = new ExpertPlace { Chunk = Group.IdxX >> 5, First = Group.IdxX >> 5, Step = warps, Chunks = a.Weights.K / TileStream.ChunkCodes<TFormat>() };
        int items = table.Count[0] * (next.Chunks / warps);
        TilePlace place = TileStream.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, lane);
        ExpertDownItem w0 = Load<TFormat>(a, table, place, ref next), w1 = Load<TFormat>(a, table, place, ref next);
        ExpertDownItem w2 = Load<TFormat>(a, table, place, ref next);
        GridDependency.Release();
        GridDependency.Wait();
        Clock.Mark(a.Stamps, Grid.IdxX, 1);
        uint weight = table.RequestWeight(a);
        if (TInputs.IsOneRow)
            TileRow.Copy(a.Activated.Cast<uint>(), rows);
        table.StoreWeights(a, weight);
        w0 = LoadInputs<TFormat, TInputs, TTiles>(a, table, w0);
        w1 = LoadInputs<TFormat, TInputs, TTiles>(a, table, w1);
        w2 = LoadInputs<TFormat, TInputs, TTiles>(a, table, w2);
        Group.Barrier(); // weights and rows are there before anyone multiplies by them
        Clock.Mark(a.Stamps, Grid.IdxX, 2);
        int i = 0;
        for (; i + 2 < items; i += 3)
        {
            Multiply<TFormat, TInputs, TTiles>(a, table, rows, w0, ref sum0, ref sum1);
            w0 = LoadInputs<TFormat, TInputs, TTiles>(a, table, Load<TFormat>(a, table, place, ref next));
            Multiply<TFormat, TInputs, TTiles>(a, table, rows, w1, ref sum0, ref sum1);
            w1 = LoadInputs<TFormat, TInputs, TTiles>(a, table, Load<TFormat>(a, table, place, ref next));
            Multiply<TFormat, TInputs, TTiles>(a, table, rows, w2, ref sum0, ref sum1);
            w2 = LoadInputs<TFormat, TInputs, TTiles>(a, table, Load<TFormat>(a, table, place, ref next));
        }
        if (i < items)
            Multiply<TFormat, TInputs, TTiles>(a, table, rows, w0, ref sum0, ref sum1);
        if (i + 1 < items)
            Multiply<TFormat, TInputs, TTiles>(a, table, rows, w1, ref sum0, ref sum1);
    }

    // Past the last item the last expert's chunks are read again; without any expert the first one's, and nothing is done with them.
    private static ExpertDownItem Load<TFormat>(ExpertArgs a, ExpertTable table, TilePlace place, ref ExpertPlace next)
        where TFormat : struct, IStreamedFormat
    {
        int rank = IntrinsicMath.Min(next.Rank, table.Count[0] - 1);
        ExpertDownItem loaded = default;
        loaded.Rank = IntrinsicMath.Max(rank, 0);
        loaded.Chunk = next.Chunk;
        loaded.Weights = TileStream.Load<TFormat>(a.Weights, place, rank < 0 ? 0 : table.Experts[loaded.Rank], next.Chunk);
        next.Advance();
        return loaded;
    }

    // Requested with the weights: loads return in the order of their requests, and inputs that were asked for when they are multiplied would wait for all weights
    // requested meanwhile. A token that did not choose the expert has zeros for inputs.
    private static ExpertDownItem LoadInputs<TFormat, TInputs, TTiles>(ExpertArgs a, ExpertTable table, ExpertDownItem item)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles
    {
        if (TInputs.IsOneRow)
            return item;
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

    private static void Multiply<TFormat, TInputs, TTiles>(ExpertArgs a, ExpertTable table, ArrayView<uint> rows, ExpertDownItem item, ref F4 sum0, ref F4 sum1)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles
    {
        float scale = TileStream.MatrixScale<TFormat>(a.Weights, table.Experts[item.Rank]);
        if (TInputs.IsOneRow)
        {
            int pair = table.Pairs[item.Rank];
            TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(rows, ((long)pair * (a.Weights.K >> 1)) + TileStream.InputWord<TFormat>(Group.IdxX & 31), item.Chunk);
            float weight = table.Weights[pair] * scale;
            sum0 = TileStream.Multiply<TFormat>(item.Weights, x, weight, weight, sum0);
            return;
        }
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

/// <summary>The experts that a batch chose, in ascending order, and whose they are: in shared memory.</summary>
internal struct ExpertTable
{
    /// <summary>[Count] ids.</summary>
    public ArrayView<int> Experts;

    /// <summary>[pairs].</summary>
    public ArrayView<float> Weights;

    /// <summary>[pairs] as routed; −1 for an expert that does not exist.</summary>
    public ArrayView<int> Ids;

    /// <summary>[pairs] the id where no earlier pair has it, else more than any.</summary>
    public ArrayView<int> Firsts;

    /// <summary>[Count, tokens] the pair, or −1.</summary>
    public ArrayView<int> Pairs;

    /// <summary>[1].</summary>
    public ArrayView<int> Count;

    /// <summary>The pair of a token with an expert, or −1.</summary>
    public readonly int PairOf(ExpertArgs a, int rank, int token) => token < a.Tokens ? Pairs[(rank * a.Tokens) + token] : -1;

    /// <summary>Called by the whole block, which may use it afterwards.</summary>
    public readonly void Fill<TInputs>(ExpertArgs a)
        where TInputs : struct, ITileInputs
    {
        int pairs = a.Tokens * a.TopK;
        if (Group.IdxX == 0)
            Count[0] = 0;
        if (TInputs.IsNormed)
        {
            // The launch before writes what it chose; what it chose from is older.
            RouterChoice choice = RouterSums.Select(a.Router, a.TopK);
            if (Group.IdxX < pairs)
                Ids[Group.IdxX] = choice.ChosenExpert;
        }
        else
        {
            ArrayView<uint> experts = a.Experts.Cast<uint>();
            for (int p = Group.IdxX; p < pairs; p += Group.DimX)
            {
                int id = (int)Mem.LoadL2Word(ref experts[p]);
                Ids[p] = id >= 0 && id < a.ExpertCount ? id : -1;
            }
        }
        for (int i = Group.IdxX; i < pairs * a.Tokens; i += Group.DimX)
            Pairs[i] = -1;
        Group.Barrier(); // ids are there before they are compared, the table is empty before it is filled
        for (int p = Group.IdxX; p < pairs; p += Group.DimX)
            Firsts[p] = Ids[p] >= 0 && IsFirst(p) ? Ids[p] : int.MaxValue;
        Group.Barrier(); // first occurrences are known before they are counted
        for (int p = Group.IdxX; p < pairs; p += Group.DimX)
        {
            int id = Ids[p];
            if (id < 0)
                continue;
            int rank = 0;
            for (int q = 0; q < pairs; q++)
                rank += Firsts[q] < id ? 1 : 0;
            Experts[rank] = id; // every pair of an expert writes the same
            Pairs[(rank * a.Tokens) + (p / a.TopK)] = p;
            Atomic.Max(ref Count[0], rank + 1); // integers: the order does not matter
        }
        Group.Barrier(); // the table is complete before it is read
    }

    /// <summary>The weight of a thread's first pair, after waiting: the launch before may have made it. Requested before it is needed, to be waited for together with the rows.</summary>
    public readonly uint RequestWeight(ExpertArgs a) => Group.IdxX < a.Tokens * a.TopK ? Mem.LoadL2Word(ref a.PairWeights.Cast<uint>()[Group.IdxX]) : 0;

    /// <summary>All pairs' weights, of which a thread has its first.</summary>
    public readonly void StoreWeights(ExpertArgs a, uint first)
    {
        int pairs = a.Tokens * a.TopK;
        if (Group.IdxX < pairs)
            Weights[Group.IdxX] = Interop.IntAsFloat(first);
        for (int p = Group.IdxX + Group.DimX; p < pairs; p += Group.DimX)
            Weights[p] = Interop.IntAsFloat(Mem.LoadL2Word(ref a.PairWeights.Cast<uint>()[p]));
    }

    private readonly bool IsFirst(int pair)
    {
        // Without a way out of the loop, loads do not wait for each other.
        int own = Ids[pair], earlier = 0;
        for (int q = 0; q < pair; q++)
            earlier += Ids[q] == own ? 1 : 0;
        return earlier == 0;
    }
}
