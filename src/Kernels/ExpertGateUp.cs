using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>One lane's part of a chunk of gate and up: weights, and its inputs unless a row of them is in shared memory.</summary>
internal struct ExpertChunk
{
    public TileChunk Gate, Up;
    public TileInputs Inputs;
}

/// <summary>One lane's sums.</summary>
internal struct ExpertSums
{
    public F4 Gate, Up;
}

/// <summary>The rows of a block, and a lane's first word of its row of x.</summary>
internal struct ExpertRows
{
    public TilePlace Gate, Up;
    public long Inputs;
    public int Expert;
}

/// <summary>
/// The first half of a Mixture-of-Experts layer for at most 16 tokens: a[p] = silu(Wgate · x) · (Wup · x) with the expert of pair p and
/// the input of its token, float32 sums, rounded once.
/// </summary>
/// <remarks>
/// A block has 16 gate rows and the 16 up rows beside them of one expert, for all tokens that chose it: block (i, p) takes the expert of pair
/// p unless an earlier pair has it too. Those tokens are the columns of an mma, eight at a time: more than eight read the weights again. Its warps take turns along K and add up in
/// shared memory, in warp order. A token's column does not see the other columns, so its bits do not depend on who else is in the batch. Which expert it is comes from the launch
/// before, so no weights of it can be requested earlier; the launch after this one is released only when all blocks have waited, and may read early what is older.
/// </remarks>
internal static class ExpertGateUp
{
    public const int MostTokens = 16;

    /// <summary>Sums of one warp: gate and up.</summary>
    private const int WarpSums = 2 * TileStream.Sums;

    /// <summary>Bytes of the row of inputs, with what goes before it.</summary>
    private static int RowBytes<TInputs>(int k)
        where TInputs : struct, ITileInputs => TInputs.IsOneRow ? TileRow.ScratchBytes + (2 * k) : 0;

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes<TInputs>(int warps, int k)
        where TInputs : struct, ITileInputs => RowBytes<TInputs>(k) + (warps * WarpSums * sizeof(float));

    public static void Run<TFormat, TInputs>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
    {
        ArrayView<int> found = SharedMemory.Allocate<int>(TInputs.IsNormed ? 1 + RouterSums.ChoiceWords : 1 + MostTokens);
        ArrayView<int> columns = SharedMemory.Allocate<int>(1 + MostTokens);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int expert;
        if (TInputs.IsNormed)
        {
            expert = NormAndRoute(a, shared, found);
        }
        else
        {
            GridDependency.Wait();
            GridDependency.Release();
            expert = (int)Mem.LoadL2Word(ref a.Experts.Cast<uint>()[Grid.IdxY]);
        }
        // The same for the whole block. Routing comes from the device unchecked: an expert that does not exist is left out.
        bool skip = expert < 0 || expert >= a.ExpertCount;
        if (!TInputs.IsOneRow)
            skip = skip | IsTaken(a, found, Grid.IdxY, expert);
        if (skip)
            return;
        int row = RowBytes<TInputs>(a.Weights.K), count = 1;
        ArrayView<float> partials = shared.SubView(row, shared.Length - row).Cast<float>();
        if (TInputs.IsGathered)
        {
            Gather(found, columns);
            count = columns[MostTokens];
        }
        for (int first = 0; first < count; first += TileStream.Columns)
        {
            float factor = TileStream.MatrixScale<TFormat>(a.Weights, expert), norm = 1;
            ExpertSums sums = Stream<TFormat, TInputs>(a, shared, (expert, first), TInputs.IsGathered ? columns : found, ref norm);
            int lane = Group.IdxX & 31, start = (Group.IdxX >> 5) * WarpSums;
            TileStream.Publish(partials, start, lane, sums.Gate);
            TileStream.Publish(partials, start + TileStream.Sums, lane, sums.Up);
            // All warps' sums are there before they are added.
            Group.Barrier();
            Store<TInputs>(a, partials, TInputs.IsGathered ? columns.SubView(first, count - first) : found.SubView(1, MostTokens), factor * norm);
            if (!TInputs.IsGathered)
                return;
            Group.Barrier(); // sums have been added before the next ones come
        }
    }

    // The row is normed by all while one warp finds the expert of the block's pair: of many blocks asking for the same lines at once, each waits for the others. The launch after this
    // one may begin before all is chosen, and is told as soon as it is.
    private static int NormAndRoute(ExpertArgs a, ArrayView<byte> shared, ArrayView<int> found)
    {
        TileRowGains gains = TileRow.LoadGains(a.Source, a.Weights.K / 2);
        bool routes = Group.IdxX < 32;
        GridDependency.Wait();
        TileRowStates states = TileRow.LoadStates(a.Source, a.Weights.K / 2);
        RouterChoice choice = default;
        if (routes)
            choice = RouterSums.Load(a.Router);
        float squares = TileRow.Scale(a.Source, Row(a, shared), states, gains);
        if (routes)
        {
            choice = RouterSums.Select(choice, Grid.IdxY + 1);
            if (StoresRouting(a))
            {
                RouterSums.Announce(a.Router, choice, a.TopK);
                RouterSums.Keep(Choice(found), choice);
            }
            if (Group.IdxX == 0)
                found[0] = choice.LastExpert;
        }
        GridDependency.Release();
        TileRow.AddSquares(shared.Cast<float>(), squares);
        Group.Barrier(); // the row and the expert are there before anyone uses them
        return found[0];
    }

    private static ArrayView<uint> Choice(ArrayView<int> found) => found.SubView(1, RouterSums.ChoiceWords).Cast<uint>();

    // Whether an earlier pair's block has the expert; else which of its pairs each token has, or −1.
    private static bool IsTaken(ExpertArgs a, ArrayView<int> found, int pair, int expert)
    {
        for (int i = Group.IdxX; i <= MostTokens; i += Group.DimX)
            found[i] = i == 0 ? 0 : -1;
        Group.Barrier(); // nobody has been found before anyone is
        for (int q = Group.IdxX; q < a.Tokens * a.TopK; q += Group.DimX)
        {
            if ((int)Mem.LoadL2Word(ref a.Experts.Cast<uint>()[q]) != expert)
                continue;
            if (q < pair)
                found[0] = 1;
            found[1 + (q / a.TopK)] = q;
        }
        Group.Barrier(); // everyone has looked
        return found[0] != 0;
    }

    // The pairs of the tokens that chose the expert, in the order of tokens, and how many.
    private static void Gather(ArrayView<int> found, ArrayView<int> columns)
    {
        if (Group.IdxX < MostTokens)
        {
            int own = found[1 + Group.IdxX], earlier = 0;
            for (int t = 0; t < Group.IdxX; t++)
                earlier += found[1 + t] >= 0 ? 1 : 0;
            if (own >= 0)
                columns[earlier] = own;
            if (Group.IdxX == MostTokens - 1)
                columns[MostTokens] = earlier + (own >= 0 ? 1 : 0);
        }
        Group.Barrier(); // all are there before anyone is read
    }

    private static ExpertSums Stream<TFormat, TInputs>(ExpertArgs a, ArrayView<byte> shared, (int Expert, int First) part, ArrayView<int> found, ref float norm)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
    {
        ExpertRows rows = default;
        rows.Expert = part.Expert;
        int lane = Group.IdxX & 31, token = IntrinsicMath.Min(lane >> 2, a.Tokens - 1);
        // Columns beyond the tokens repeat one of them; their sums are not stored.
        if (TInputs.IsGathered)
            token = found[part.First + (lane >> 2) < found[MostTokens] ? part.First + (lane >> 2) : part.First] / a.TopK;
        rows.Inputs = ((long)token * (a.Weights.K >> 1)) + TileStream.InputWord<TFormat>(lane);
        rows.Gate = TileStream.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, lane);
        rows.Up = TileStream.Locate<TFormat>(a.Weights, (Grid.IdxX * TileStream.Rows) + a.Width, lane);
        return StreamThree<TFormat, TInputs>(a, shared, rows, found, ref norm);
    }

    // Three chunks of both matrices are in registers, each refilled right after it is multiplied; past the end the last one is read
    // again. No branch stands in the loop that the compiler would wait at.
    private static ExpertSums StreamThree<TFormat, TInputs>(ExpertArgs a, ArrayView<byte> shared, ExpertRows rows, ArrayView<int> found, ref float norm)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
    {
        int step = Group.DimX >> 5, c = Group.IdxX >> 5, count = a.Weights.K / TileStream.ChunkCodes<TFormat>(), last = count - 1;
        ExpertChunk w0 = Load<TFormat, TInputs>(a, rows, IntrinsicMath.Min(c, last)), w1 = Load<TFormat, TInputs>(a, rows, IntrinsicMath.Min(c + step, last));
        ExpertChunk w2 = Load<TFormat, TInputs>(a, rows, IntrinsicMath.Min(c + (2 * step), last));
        ArrayView<uint> x = Prepare<TInputs>(a, shared);
        if (TInputs.IsNormed)
        {
            // In the shadow of the first weights.
            norm = TileRow.Factor(a.Source, a.Weights.K, shared.Cast<float>());
            if (StoresRouting(a))
                StoreRouting(a, RouterSums.Kept(Choice(found)), norm);
        }
        ExpertSums sums = default;
        for (; c + (2 * step) < count; c += 3 * step)
        {
            Multiply<TFormat, TInputs>(x, w0, c, ref sums);
            w0 = Load<TFormat, TInputs>(a, rows, IntrinsicMath.Min(c + (3 * step), last));
            Multiply<TFormat, TInputs>(x, w1, c + step, ref sums);
            w1 = Load<TFormat, TInputs>(a, rows, IntrinsicMath.Min(c + (4 * step), last));
            Multiply<TFormat, TInputs>(x, w2, c + (2 * step), ref sums);
            w2 = Load<TFormat, TInputs>(a, rows, IntrinsicMath.Min(c + (5 * step), last));
        }
        if (c < count)
            Multiply<TFormat, TInputs>(x, w0, c, ref sums);
        if (c + step < count)
            Multiply<TFormat, TInputs>(x, w1, c + step, ref sums);
        return sums;
    }

    // Inputs come with the weights: requested when they are multiplied, they would be waited for behind the weights requested meanwhile.
    private static ExpertChunk Load<TFormat, TInputs>(ExpertArgs a, ExpertRows rows, int chunk)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
    {
        ExpertChunk loaded = default;
        loaded.Gate = TileStream.Load<TFormat>(a.Weights, rows.Gate, rows.Expert, chunk);
        loaded.Up = TileStream.Load<TFormat>(a.Weights, rows.Up, rows.Expert, chunk);
        if (!TInputs.IsOneRow)
            loaded.Inputs = TileStream.Inputs<TFormat, DeviceTileMemory>(a.Source.X.Cast<uint>(), rows.Inputs, chunk);
        return loaded;
    }

    private static ArrayView<uint> Row(ExpertArgs a, ArrayView<byte> shared) => shared.SubView(TileRow.ScratchBytes, 2 * a.Weights.K).Cast<uint>();

    // Called by all threads: there may be a barrier in it.
    private static ArrayView<uint> Prepare<TInputs>(ExpertArgs a, ArrayView<byte> shared)
        where TInputs : struct, ITileInputs
    {
        if (!TInputs.IsOneRow)
            return shared.Cast<uint>();
        ArrayView<uint> row = Row(a, shared);
        if (TInputs.IsNormed)
            return row;
        TileRow.Copy(a.Source.X.Cast<uint>(), row);
        Group.Barrier(); // the row is there before anyone multiplies by it
        return row;
    }

    private static void Multiply<TFormat, TInputs>(ArrayView<uint> row, ExpertChunk w, int chunk, ref ExpertSums sums)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
    {
        TileInputs x = TInputs.IsOneRow ? TileStream.Inputs<TFormat, SharedTileMemory>(row, TileStream.InputWord<TFormat>(Group.IdxX & 31), chunk) : w.Inputs;
        sums.Gate = TileStream.Multiply<TFormat>(w.Gate, x, 1f, 1f, sums.Gate);
        sums.Up = TileStream.Multiply<TFormat>(w.Up, x, 1f, 1f, sums.Up);
    }

    // One warp of the whole grid, of a block that has chosen all: its choice is everybody's.
    private static bool StoresRouting(ExpertArgs a) => Grid.IdxX == 0 & Grid.IdxY == a.TopK - 1 & Group.IdxX < 32;

    private static void StoreRouting(ExpertArgs a, RouterChoice choice, float norm)
    {
        float weight = RouterSums.Weight(a.Router, choice, a.TopK, norm);
        RouterSums.StoreLogits(a.Router, choice, norm);
        if (Group.IdxX < a.TopK)
        {
            a.Experts[Group.IdxX] = choice.ChosenExpert;
            a.PairWeights[Group.IdxX] = weight;
        }
    }

    // Pairs of the columns, −1 where there is none; one token has the block's.
    private static void Store<TInputs>(ExpertArgs a, ArrayView<float> partials, ArrayView<int> pairs, float factor)
        where TInputs : struct, ITileInputs
    {
        int warps = Group.DimX >> 5;
        for (int i = Group.IdxX; i < TileStream.Sums; i += Group.DimX)
        {
            int column = i & 7, n = (Grid.IdxX * TileStream.Rows) + (i >> 3);
            if (n >= a.Width || (TInputs.IsOneRow && column > 0) || column >= pairs.Length)
                continue;
            int pair = TInputs.IsOneRow ? Grid.IdxY : pairs[column];
            if (pair < 0)
                continue;
            float gate = TileStream.Collect(partials, i, WarpSums, warps) * factor;
            float up = TileStream.Collect(partials, i + TileStream.Sums, WarpSums, warps) * factor;
            a.Activated[((long)pair * a.Width) + n] = Bf16.FromFloat(gate / (1f + XMath.Exp(-gate)) * up);
        }
    }
}
