using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// The second half of a Mixture-of-Experts layer for one token: r += Σ_j p[j] · Wdown(expert of j) · a[j], float32 sums.
/// </summary>
/// <remarks>
/// A block owns 16 columns of the residual stream and goes through the token's experts in the order in which they were chosen; a warp multiplies the same chunks of every expert. A pair's weight multiplies a
/// chunk's sums, and the warps add up in shared memory, in a fixed order. The launch before this one is <see cref="ExpertGateUp"/>, which announces the experts: the first weights are requested before this kernel waits.
/// </remarks>
internal static class ExpertDown
{
    /// <summary>Warps of a block for K columns: all have the same number of chunks.</summary>
    public static int Warps(int chunks, int most)
    {
        int warps = IntrinsicMath.Min(chunks, most);
        while (chunks % warps != 0)
            warps--;
        return warps;
    }

    // Shared memory, all on 16-byte boundaries: a barrier, the pairs' weights, their experts, the rows of inputs, the warps' sums.
    private const int WeightStart = 16;

    private static int ExpertStart(int pairs) => WeightStart + (((pairs * sizeof(int)) + 15) & ~15);

    private static int RowStart(int pairs) => ExpertStart(pairs) + (((pairs * sizeof(int)) + 15) & ~15);

    private static int PartialStart(int pairs, int k) => RowStart(pairs) + (2 * pairs * k);

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes(int warps, int pairs, int k) => PartialStart(pairs, k) + (warps * TileStream.Sums * sizeof(float));

    public static void Run<TFormat, TTurns>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat
        where TTurns : struct, ITileTurns
    {
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int k = a.Weights.K, partialStart = PartialStart(a.TopK, k);
        ArrayView<float> partials = shared.SubView(partialStart, shared.Length - partialStart).Cast<float>();
        ExpertTable table = default;
        table.Experts = shared.SubView(ExpertStart(a.TopK), a.TopK * sizeof(int)).Cast<int>();
        table.Weights = shared.SubView(WeightStart, a.TopK * sizeof(int)).Cast<float>();
        ArrayView<uint> rows = shared.SubView(RowStart(a.TopK), 2 * a.TopK * k).Cast<uint>();
        uint window = 0;
        if (TTurns.Count == 8)
        {
            window = SharedWindow.Open(ref shared[0]);
            if (Group.IdxX == 0)
            {
                Mbarrier.Initialize(window, 1);
                Mbarrier.FenceInitialized();
            }
        }
        table.Await(a);
        int row = (Grid.IdxX * TileStream.Rows) + (Group.IdxX >> 3);
        bool owns = Group.IdxX < TileStream.Sums && row < a.Weights.N;
        float old = 0;
        F4 sum = TTurns.Count == 8 ? StreamEight<TFormat>(a, table, rows, window, owns, ref old) : StreamAny<TFormat>(a, table, rows);
        TileStream.Publish(partials, (Group.IdxX >> 5) * TileStream.Sums, Group.IdxX & 31, sum);
        if (TTurns.Count != 8 && owns)
            old = a.Residual[row];
        // All warps' sums are there before they are added.
        Block.Barrier();
        RouterPosts.Clear(a.Router.Posts);
        if (Group.DimX >= TileStream.Sums)
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
        for (int i = Group.IdxX * TileStream.Columns; i < TileStream.Sums; i += Group.DimX * TileStream.Columns)
        {
            int n = (Grid.IdxX * TileStream.Rows) + (i >> 3);
            if (n < a.Weights.N)
                a.Residual[n] += TileStream.CollectAlone(partials, i, TileStream.Sums, Group.DimX >> 5);
        }
    }

    // Eight experts, a chunk of each a warp: all are on their way before the launch before has ended, and no branch stands between them. A thread's loads return in the order of their requests, so what is known
    // only after waiting comes through the copy engine: the chunks that have arrived are multiplied while others are on their way.
    private static F4 StreamEight<TFormat>(ExpertArgs a, ExpertTable table, ArrayView<uint> rows, uint window, bool owns, ref float old)
        where TFormat : struct, IStreamedFormat
    {
        TilePlace place = TileStream.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, Group.IdxX & 31);
        TileChunk w0 = LoadOf<TFormat>(a, table, place, 0), w1 = LoadOf<TFormat>(a, table, place, 1), w2 = LoadOf<TFormat>(a, table, place, 2), w3 = LoadOf<TFormat>(a, table, place, 3);
        TileChunk w4 = LoadOf<TFormat>(a, table, place, 4), w5 = LoadOf<TFormat>(a, table, place, 5), w6 = LoadOf<TFormat>(a, table, place, 6), w7 = LoadOf<TFormat>(a, table, place, 7);
        GridDependency.Release();
        GridDependency.Wait();
        if (Group.IdxX == 0)
        {
            int rowBytes = 2 * a.TopK * a.Weights.K, weightBytes = a.TopK * sizeof(float);
            Mbarrier.ArriveExpecting(window, rowBytes + weightBytes);
            BulkCopy.Load(window + (uint)RowStart(a.TopK), ref a.Activated.Cast<uint>()[0], rowBytes, window);
            BulkCopy.Load(window + WeightStart, ref a.PairWeights.Cast<uint>()[0], weightBytes, window);
        }
        if (owns)
            old = a.Residual[(Grid.IdxX * TileStream.Rows) + (Group.IdxX >> 3)];
        Mbarrier.Wait(window, 0);
        F4 sum = MultiplyOf<TFormat>(a, table, rows, w0, 0, default);
        sum = MultiplyOf<TFormat>(a, table, rows, w1, 1, sum);
        sum = MultiplyOf<TFormat>(a, table, rows, w2, 2, sum);
        sum = MultiplyOf<TFormat>(a, table, rows, w3, 3, sum);
        sum = MultiplyOf<TFormat>(a, table, rows, w4, 4, sum);
        sum = MultiplyOf<TFormat>(a, table, rows, w5, 5, sum);
        sum = MultiplyOf<TFormat>(a, table, rows, w6, 6, sum);
        return MultiplyOf<TFormat>(a, table, rows, w7, 7, sum);
    }

    private static TileChunk LoadOf<TFormat>(ExpertArgs a, ExpertTable table, TilePlace place, int pair)
        where TFormat : struct, IStreamedFormat => TileStream.Load<TFormat>(a.Weights, place, table.Experts[pair], Group.IdxX >> 5);

    private static F4 MultiplyOf<TFormat>(ExpertArgs a, ExpertTable table, ArrayView<uint> rows, TileChunk w, int pair, F4 sum)
        where TFormat : struct, IStreamedFormat
    {
        TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(rows, (pair * (a.Weights.K >> 1)) + TileStream.InputWord<TFormat>(Group.IdxX & 31), Group.IdxX >> 5);
        float weight = table.Weights[pair] * TileStream.MatrixScale<TFormat>(a.Weights, table.Experts[pair]);
        return TileStream.Multiply<TFormat>(w, x, weight, weight, sum);
    }

    // An item is a chunk of an expert, and eight are on their way before the launch before has ended.
    private static F4 StreamAny<TFormat>(ExpertArgs a, ExpertTable table, ArrayView<uint> rows)
        where TFormat : struct, IStreamedFormat
    {
        ExpertPlace next = FirstPlace<TFormat>(a), own = next;
        int items = a.TopK * (next.Chunks / next.Step);
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
        Block.Barrier(); // weights and rows are there before anyone multiplies by them
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

    private static ExpertPlace FirstPlace<TFormat>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat =>
        new() { Chunk = Group.IdxX >> 5, First = Group.IdxX >> 5, Step = Group.DimX >> 5, Chunks = a.Weights.K / TileStream.ChunkCodes<TFormat>() };

    private static TileChunk LoadNext<TFormat>(ExpertArgs a, ExpertTable table, TilePlace place, ref ExpertPlace next)
        where TFormat : struct, IStreamedFormat
    {
        TileChunk loaded = TileStream.Load<TFormat>(a.Weights, place, table.Experts[IntrinsicMath.Min(next.Rank, a.TopK - 1)], next.Chunk);
        next.Advance();
        return loaded;
    }

    private static F4 MultiplyNext<TFormat>(ExpertArgs a, ExpertTable table, ArrayView<uint> rows, TileChunk w, ref ExpertPlace own, F4 sum)
        where TFormat : struct, IStreamedFormat
    {
        TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(rows, ((long)own.Rank * (a.Weights.K >> 1)) + TileStream.InputWord<TFormat>(Group.IdxX & 31), own.Chunk);
        float weight = table.Weights[own.Rank] * TileStream.MatrixScale<TFormat>(a.Weights, table.Experts[own.Rank]);
        own.Advance();
        return TileStream.Multiply<TFormat>(w, x, weight, weight, sum);
    }
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
