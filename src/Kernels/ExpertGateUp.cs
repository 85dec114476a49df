using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of the two kernels that run the chosen experts of at most 16 tokens.</summary>
internal struct ExpertArgs
{
    /// <summary>Stamps.</summary>
    public ArrayView<long> Stamps;

    /// <summary>Gate and up, one below the other, or down.</summary>
    public StreamedWeights Weights;

    /// <summary>The tokens' inputs, of gate and up.</summary>
    public TileSource Source;

    /// <summary>One token's routing where the kernels make it themselves.</summary>
    public RouterArgs Router;

    /// <summary>[Tokens · TopK] the expert of each pair; of a token's pairs all differ.</summary>
    public ArrayView<int> Experts;

    /// <summary>[Tokens · TopK] float32.</summary>
    public ArrayView<float> PairWeights;

    /// <summary>[Tokens · TopK, Width] BF16: silu(gate) · up.</summary>
    public ArrayView<ushort> Activated;

    /// <summary>[Tokens, N of down] float32, added to.</summary>
    public ArrayView<float> Residual;

    public int Tokens;
    public int TopK;
    public int ExpertCount;

    /// <summary>Rows of gate, of up, and columns of down.</summary>
    public int Width;
}

/// <summary>One lane's part of a chunk of gate and up: weights, and the inputs of each tile of x unless a row of them is in shared memory.</summary>
internal struct ExpertChunk
{
    public TileChunk Gate, Up;
    public TileInputs Inputs0, Inputs1;
}

/// <summary>One lane's sums, of each tile of x.</summary>
internal struct ExpertSums
{
    public F4 Gate0, Gate1, Up0, Up1;
}

/// <summary>The rows of a block, and a lane's first word of its rows of x.</summary>
internal struct ExpertRows
{
    public TilePlace Gate, Up;
    public long Inputs0, Inputs1;
    public int Expert;
}

/// <summary>What a block knows of its inputs before it knows its expert.</summary>
internal struct ExpertRowParts
{
    public TileRowStates States;
    public TileRowGains Gains;
}

/// <summary>
/// The first half of a Mixture-of-Experts layer for at most 16 tokens: a[p] = silu(Wgate · x) · (Wup · x) with the expert of pair p and
/// the input of its token, float32 sums, rounded once.
/// </summary>
/// <remarks>
/// A block has 16 gate rows and the 16 up rows beside them of one expert, for all tokens that chose it: block (i, p) takes the expert of pair
/// p unless an earlier pair has it too. Its warps take turns along K and add up in shared memory, in warp order. A token's column of an mma
/// does not see the other columns, so its bits do not depend on who else is in the batch. Which expert it is comes from the launch before, so
/// no weights of it can be requested earlier; the launch after this one is released only when all blocks have waited, and may read early what is older.
/// </remarks>
internal static class ExpertGateUp
{
    public const int MostTokens = 16;

    /// <summary>Sums of one warp: gate and up in each tile of x.</summary>
    private static int WarpSums<TTiles>()
        where TTiles : struct, ITiles => 2 * TTiles.Count * TileStream.Sums;

    /// <summary>Bytes of the row of inputs, with what goes before it.</summary>
    public static int RowBytes<TInputs>(int k)
        where TInputs : struct, ITileInputs => TInputs.IsOneRow ? TileRow.ScratchBytes + (2 * k) : 0;

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes<TInputs, TTiles>(int warps, int k)
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles => RowBytes<TInputs>(k) + (warps * WarpSums<TTiles>() * sizeof(float));

    public static void Run<TFormat, TInputs, TTiles>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles
    {
        Clock.Mark(a.Stamps, (Grid.IdxY * Grid.DimX) + Grid.IdxX, 0);
        ArrayView<int> found = SharedMemory.Allocate<int>(1 + MostTokens);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        ExpertRowParts parts = default;
        if (TInputs.IsNormed)
            parts.Gains = TileRow.LoadGains(a.Source, a.Weights.K / 2);
        GridDependency.Wait();
        Clock.Mark(a.Stamps, (Grid.IdxY * Grid.DimX) + Grid.IdxX, 1);
        GridDependency.Release();
        if (TInputs.IsNormed)
            parts.States = TileRow.LoadStates(a.Source, a.Weights.K / 2);
        int pair = Grid.IdxY, expert;
        RouterChoice choice = default;
        if (TInputs.IsNormed)
        {
            choice = RouterSums.Select(a.Router, a.TopK);
            expert = (int)WarpOps.Shuffle((uint)choice.ChosenExpert, pair);
        }
        else
        {
            expert = (int)Mem.LoadL2Word(ref a.Experts.Cast<uint>()[pair]);
        }
        // The same for the whole block. Routing comes from the device unchecked: an expert that does not exist is left out.
        bool skip = expert < 0 || expert >= a.ExpertCount;
        if (a.Tokens > 1)
            skip = skip | IsTaken(a, found, pair, expert);
        if (skip)
            return;
        int row = RowBytes<TInputs>(a.Weights.K);
        ArrayView<float> partials = shared.SubView(row, shared.Length - row).Cast<float>();
        ExpertSums sums = default;
        Stream<TFormat, TInputs, TTiles>(a, shared, expert, parts, ref sums);
        int lane = Group.IdxX & 31, start = (Group.IdxX >> 5) * WarpSums<TTiles>();
        TileStream.Publish(partials, start, lane, sums.Gate0);
        TileStream.Publish(partials, start + TileStream.Sums, lane, sums.Up0);
        if (TTiles.Count == 2)
        {
            TileStream.Publish(partials, start + (2 * TileStream.Sums), lane, sums.Gate1);
            TileStream.Publish(partials, start + (3 * TileStream.Sums), lane, sums.Up1);
        }
        Group.Barrier();
        Clock.Mark(a.Stamps, (Grid.IdxY * Grid.DimX) + Grid.IdxX, 3);
        float factor = TileStream.MatrixScale<TFormat>(a.Weights, expert);
        if (TInputs.IsNormed)
        {
            float norm = TileRow.Factor(a.Source, a.Weights.K, shared.Cast<float>());
            factor *= norm;
            StoreRouting(a, choice, norm);
        }
        Store<TTiles>(a, partials, found, factor);
        Clock.Mark(a.Stamps, (Grid.IdxY * Grid.DimX) + Grid.IdxX, 4);
    }

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

    private static void Stream<TFormat, TInputs, TTiles>(ExpertArgs a, ArrayView<byte> shared, int expert, ExpertRowParts parts, ref ExpertSums sums)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles
    {
        ExpertRows rows = default;
        rows.Expert = expert;
        // Columns beyond the tokens repeat the last one; their sums are not stored.
        int lane = Group.IdxX & 31, word = TileStream.InputWord<TFormat>(lane);
        rows.Inputs0 = ((long)IntrinsicMath.Min(lane >> 2, a.Tokens - 1) * (a.Weights.K >> 1)) + word;
        rows.Inputs1 = ((long)IntrinsicMath.Min((lane >> 2) + TileStream.Columns, a.Tokens - 1) * (a.Weights.K >> 1)) + word;
        rows.Gate = TileStream.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, lane);
        rows.Up = TileStream.Locate<TFormat>(a.Weights, (Grid.IdxX * TileStream.Rows) + a.Width, lane);
        // With a second tile of inputs a third chunk would cost more registers than it hides.
        if (TTiles.Count == 2)
            StreamTwo<TFormat, TInputs, TTiles>(a, shared, rows, parts, ref sums);
        else
            StreamThree<TFormat, TInputs, TTiles>(a, shared, rows, parts, ref sums);
    }

    private static void StreamTwo<TFormat, TInputs, TTiles>(ExpertArgs a, ArrayView<byte> shared, ExpertRows rows, ExpertRowParts parts, ref ExpertSums sums)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles
    {
        int step = Group.DimX >> 5, c = Group.IdxX >> 5, count = a.Weights.K / TileStream.ChunkCodes<TFormat>(), last = count - 1;
        ExpertChunk w0 = Load<TFormat, TInputs, TTiles>(a, rows, IntrinsicMath.Min(c, last)), w1 = Load<TFormat, TInputs, TTiles>(a, rows, IntrinsicMath.Min(c + step, last));
        ArrayView<uint> x = Prepare<TInputs>(a, shared, parts);
        for (; c + step < count; c += 2 * step)
        {
            Multiply<TFormat, TInputs, TTiles>(x, w0, c, ref sums);
            w0 = Load<TFormat, TInputs, TTiles>(a, rows, IntrinsicMath.Min(c + (2 * step), last));
            Multiply<TFormat, TInputs, TTiles>(x, w1, c + step, ref sums);
            w1 = Load<TFormat, TInputs, TTiles>(a, rows, IntrinsicMath.Min(c + (3 * step), last));
        }
        if (c < count)
            Multiply<TFormat, TInputs, TTiles>(x, w0, c, ref sums);
    }

    // Three chunks of both matrices are in registers, each refilled right after it is multiplied; past the end the last one is read
    // again. No branch stands in the loop that the compiler would wait at.
    private static void StreamThree<TFormat, TInputs, TTiles>(ExpertArgs a, ArrayView<byte> shared, ExpertRows rows, ExpertRowParts parts, ref ExpertSums sums)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles
    {
        int step = Group.DimX >> 5, c = Group.IdxX >> 5, count = a.Weights.K / TileStream.ChunkCodes<TFormat>(), last = count - 1;
        ExpertChunk w0 = Load<TFormat, TInputs, TTiles>(a, rows, IntrinsicMath.Min(c, last)), w1 = Load<TFormat, TInputs, TTiles>(a, rows, IntrinsicMath.Min(c + step, last));
        ExpertChunk w2 = Load<TFormat, TInputs, TTiles>(a, rows, IntrinsicMath.Min(c + (2 * step), last));
        ArrayView<uint> x = Prepare<TInputs>(a, shared, parts);
        for (; c + (2 * step) < count; c += 3 * step)
        {
            Multiply<TFormat, TInputs, TTiles>(x, w0, c, ref sums);
            w0 = Load<TFormat, TInputs, TTiles>(a, rows, IntrinsicMath.Min(c + (3 * step), last));
            Multiply<TFormat, TInputs, TTiles>(x, w1, c + step, ref sums);
            w1 = Load<TFormat, TInputs, TTiles>(a, rows, IntrinsicMath.Min(c + (4 * step), last));
            Multiply<TFormat, TInputs, TTiles>(x, w2, c + (2 * step), ref sums);
            w2 = Load<TFormat, TInputs, TTiles>(a, rows, IntrinsicMath.Min(c + (5 * step), last));
        }
        if (c < count)
            Multiply<TFormat, TInputs, TTiles>(x, w0, c, ref sums);
        if (c + step < count)
            Multiply<TFormat, TInputs, TTiles>(x, w1, c + step, ref sums);
    }

    // Inputs come with the weights: requested when they are multiplied, they would be waited for behind the weights requested meanwhile.
    private static ExpertChunk Load<TFormat, TInputs, TTiles>(ExpertArgs a, ExpertRows rows, int chunk)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles
    {
        ExpertChunk loaded = default;
        loaded.Gate = TileStream.Load<TFormat>(a.Weights, rows.Gate, rows.Expert, chunk);
        loaded.Up = TileStream.Load<TFormat>(a.Weights, rows.Up, rows.Expert, chunk);
        if (TInputs.IsOneRow)
            return loaded;
        loaded.Inputs0 = TileStream.Inputs<TFormat, DeviceTileMemory>(a.Source.X.Cast<uint>(), rows.Inputs0, chunk);
        if (TTiles.Count == 2)
            loaded.Inputs1 = TileStream.Inputs<TFormat, DeviceTileMemory>(a.Source.X.Cast<uint>(), rows.Inputs1, chunk);
        return loaded;
    }

    // Called by all threads: there may be a barrier in it.
    private static ArrayView<uint> Prepare<TInputs>(ExpertArgs a, ArrayView<byte> shared, ExpertRowParts parts)
        where TInputs : struct, ITileInputs
    {
        if (!TInputs.IsOneRow)
            return shared.Cast<uint>();
        ArrayView<uint> row = shared.SubView(TileRow.ScratchBytes, 2 * a.Weights.K).Cast<uint>();
        if (TInputs.IsNormed)
            TileRow.Norm(a.Source, row, shared.Cast<float>(), parts.States, parts.Gains);
        else
            TileRow.Copy(a.Source.X.Cast<uint>(), row);
        Group.Barrier(); // the row is there before anyone multiplies by it
        Clock.Mark(a.Stamps, (Grid.IdxY * Grid.DimX) + Grid.IdxX, 2);
        return row;
    }

    private static void Multiply<TFormat, TInputs, TTiles>(ArrayView<uint> row, ExpertChunk w, int chunk, ref ExpertSums sums)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TTiles : struct, ITiles
    {
        TileInputs x = TInputs.IsOneRow ? TileStream.Inputs<TFormat, SharedTileMemory>(row, TileStream.InputWord<TFormat>(Group.IdxX & 31), chunk) : w.Inputs0;
        sums.Gate0 = TileStream.Multiply<TFormat>(w.Gate, x, 1f, 1f, sums.Gate0);
        sums.Up0 = TileStream.Multiply<TFormat>(w.Up, x, 1f, 1f, sums.Up0);
        if (TTiles.Count == 2)
        {
            sums.Gate1 = TileStream.Multiply<TFormat>(w.Gate, w.Inputs1, 1f, 1f, sums.Gate1);
            sums.Up1 = TileStream.Multiply<TFormat>(w.Up, w.Inputs1, 1f, 1f, sums.Up1);
        }
    }

    // One warp of the whole grid: its choice is everybody's.
    private static void StoreRouting(ExpertArgs a, RouterChoice choice, float norm)
    {
        if (Grid.IdxX > 0 || Grid.IdxY > 0 || Group.IdxX >= 32)
            return;
        float weight = RouterSums.Weight(a.Router, choice, a.TopK, norm);
        RouterSums.StoreLogits(a.Router, choice, norm);
        if (Group.IdxX < a.TopK)
        {
            a.Experts[Group.IdxX] = choice.ChosenExpert;
            a.PairWeights[Group.IdxX] = weight;
        }
    }

    private static void Store<TTiles>(ExpertArgs a, ArrayView<float> partials, ArrayView<int> found, float factor)
        where TTiles : struct, ITiles
    {
        int warps = Group.DimX >> 5;
        for (int i = Group.IdxX; i < TTiles.Count * TileStream.Sums; i += Group.DimX)
        {
            int tile = i >> 7, token = (tile * TileStream.Columns) + (i & 7), n = (Grid.IdxX * TileStream.Rows) + ((i >> 3) & 15);
            if (token >= a.Tokens || n >= a.Width)
                continue;
            int pair = a.Tokens == 1 ? Grid.IdxY : found[1 + token];
            if (pair < 0)
                continue;
            int place = (i & 127) + (2 * tile * TileStream.Sums);
            float gate = TileStream.Collect(partials, place, WarpSums<TTiles>(), warps) * factor;
            float up = TileStream.Collect(partials, place + TileStream.Sums, WarpSums<TTiles>(), warps) * factor;
            a.Activated[((long)pair * a.Width) + n] = Bf16.FromFloat(gate / (1f + XMath.Exp(-gate)) * up);
        }
    }
}
