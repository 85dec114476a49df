using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>One lane's weights of a chunk of gate and up.</summary>
internal struct ExpertChunk
{
    public TileChunk Gate, Up;
}

/// <summary>One lane's sums.</summary>
internal struct ExpertSums
{
    public F4 Gate, Up;
}

/// <summary>The rows of a block.</summary>
internal struct ExpertRows
{
    public TilePlace Gate, Up;
    public int Expert;
}

/// <summary>
/// The first half of a Mixture-of-Experts layer for one token that the kernel routes, and if need be norms, itself: a[p] = silu(Wgate · x) · (Wup · x) with the expert of pair p, float32 sums, rounded once.
/// </summary>
/// <remarks>
/// A block has 16 gate rows and the 16 up rows beside them of one expert: block (i, p) takes the expert of pair p. Its warps take turns along K and add up in shared memory, in warp order. The choice needs the
/// launch before, so no weights can be requested earlier; the launch after this one is released only when all blocks have waited, and may read early what is older.
/// </remarks>
internal static class ExpertGateUp
{
    /// <summary>Sums of one warp: gate and up.</summary>
    private const int WarpSums = 2 * TileStream.Sums;

    /// <summary>Bytes of the row of inputs, with what goes before it.</summary>
    private static int RowBytes(int k) => TileRow.ScratchBytes + (2 * k);

    /// <summary>Shared memory of a block besides: the expert, and one warp's choice.</summary>
    public const int StaticBytes = (1 + RouterSums.ChoiceWords) * sizeof(int);

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes(int warps, int k) => RowBytes(k) + (warps * WarpSums * sizeof(float));

    public static void Run<TFormat, TInputs>(ExpertArgs a)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
    {
        ArrayView<int> found = SharedMemory.Allocate<int>(1 + RouterSums.ChoiceWords);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int expert = TInputs.IsNormed ? NormAndRoute(a, shared, found) : Route(a, shared, found), row = RowBytes(a.Weights.K);
        ArrayView<float> partials = shared.SubView(row, shared.Length - row).Cast<float>();
        float factor = TileStream.MatrixScale<TFormat>(a.Weights, expert), norm = 1;
        ExpertSums sums = Stream<TFormat, TInputs>(a, shared, expert, found, ref norm);
        int lane = Group.IdxX & 31, start = (Group.IdxX >> 5) * WarpSums;
        TileStream.Publish(partials, start, lane, sums.Gate);
        TileStream.Publish(partials, start + TileStream.Sums, lane, sums.Up);
        // All warps' sums are there before they are added.
        Block.Barrier();
        Store(a, partials, factor * norm);
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
            Choose(a, found, choice);
        GridDependency.Release();
        TileRow.AddSquares(shared.Cast<float>(), squares);
        Block.Barrier(); // the row and the expert are there before anyone uses them
        return found[0];
    }

    // The same for a row that is normed already, from the logits that the launch before posts. It releases this one after having waited, so the row is older than it; what is written waits.
    private static int Route(ExpertArgs a, ArrayView<byte> shared, ArrayView<int> found)
    {
        if (Group.IdxX >= 32)
            TileRow.CopyBesideFirst(a.Source.X.Cast<uint>(), Row(a, shared));
        else
        {
            RouterChoice choice = RouterSums.Select(RouterSums.AwaitPosts(a.Router, (Grid.IdxX + Grid.IdxY) & (RouterPosts.Copies - 1)), Grid.IdxY + 1);
            if (StoresRouting(a))
                RouterSums.Keep(Choice(found), choice);
            if (Group.IdxX == 0)
                found[0] = choice.LastExpert;
        }
        Block.Barrier(); // the row and the expert are there before anyone uses them
        return found[0];
    }

    // One warp: the expert of the block's pair; one of the grid announces all.
    private static void Choose(ExpertArgs a, ArrayView<int> found, RouterChoice choice)
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

    private static ArrayView<uint> Choice(ArrayView<int> found) => found.SubView(1, RouterSums.ChoiceWords).Cast<uint>();

    private static ExpertSums Stream<TFormat, TInputs>(ExpertArgs a, ArrayView<byte> shared, int expert, ArrayView<int> found, ref float norm)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
    {
        ExpertRows rows = default;
        rows.Expert = expert;
        int lane = Group.IdxX & 31;
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
        ExpertChunk w0 = Load<TFormat>(a, rows, IntrinsicMath.Min(c, last)), w1 = Load<TFormat>(a, rows, IntrinsicMath.Min(c + step, last));
        ExpertChunk w2 = Load<TFormat>(a, rows, IntrinsicMath.Min(c + (2 * step), last));
        ArrayView<uint> x = Row(a, shared);
        // In the shadow of the first weights.
        if (TInputs.IsNormed)
            norm = TileRow.Factor(a.Source, a.Weights.K, shared.Cast<float>());
        else
            Follow(a, found);
        if (StoresRouting(a))
            StoreRouting(a, RouterSums.Kept(Choice(found)), norm);
        ExpertSums sums = default;
        for (; c + (2 * step) < count; c += 3 * step)
        {
            Multiply<TFormat>(x, w0, c, ref sums);
            w0 = Load<TFormat>(a, rows, IntrinsicMath.Min(c + (3 * step), last));
            Multiply<TFormat>(x, w1, c + step, ref sums);
            w1 = Load<TFormat>(a, rows, IntrinsicMath.Min(c + (4 * step), last));
            Multiply<TFormat>(x, w2, c + (2 * step), ref sums);
            w2 = Load<TFormat>(a, rows, IntrinsicMath.Min(c + (5 * step), last));
        }
        if (c < count)
            Multiply<TFormat>(x, w0, c, ref sums);
        if (c + step < count)
            Multiply<TFormat>(x, w1, c + step, ref sums);
        return sums;
    }

    // What may only be written, and who may only begin, when the launch before has ended.
    private static void Follow(ExpertArgs a, ArrayView<int> found)
    {
        GridDependency.Wait();
        GridDependency.Release();
        if (StoresRouting(a))
            RouterSums.Announce(a.Router, RouterSums.Kept(Choice(found)), a.TopK);
    }

    private static ExpertChunk Load<TFormat>(ExpertArgs a, ExpertRows rows, int chunk)
        where TFormat : struct, IStreamedFormat
    {
        ExpertChunk loaded = default;
        loaded.Gate = TileStream.Load<TFormat>(a.Weights, rows.Gate, rows.Expert, chunk);
        loaded.Up = TileStream.Load<TFormat>(a.Weights, rows.Up, rows.Expert, chunk);
        return loaded;
    }

    private static ArrayView<uint> Row(ExpertArgs a, ArrayView<byte> shared) => shared.SubView(TileRow.ScratchBytes, 2 * a.Weights.K).Cast<uint>();

    private static void Multiply<TFormat>(ArrayView<uint> row, ExpertChunk w, int chunk, ref ExpertSums sums)
        where TFormat : struct, IStreamedFormat
    {
        TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(row, TileStream.InputWord<TFormat>(Group.IdxX & 31), chunk);
        sums.Gate = TileStream.Multiply<TFormat>(w.Gate, x, 1f, 1f, sums.Gate);
        sums.Up = TileStream.Multiply<TFormat>(w.Up, x, 1f, 1f, sums.Up);
    }

    // One warp of the whole grid, of a block that has chosen all: its choice is everybody's.
    private static bool StoresRouting(ExpertArgs a) => Grid.IdxX == 0 & Grid.IdxY == a.TopK - 1 & Group.IdxX < 32;

    private static void StoreRouting(ExpertArgs a, RouterChoice choice, float norm)
    {
        float weight = RouterSums.Weight(a.Router.Normalize, choice, a.TopK, norm);
        RouterSums.StoreLogits(a.Router, choice, norm);
        if (Group.IdxX < a.TopK)
        {
            a.Experts[Group.IdxX] = choice.ChosenExpert;
            a.PairWeights[Group.IdxX] = weight;
        }
    }

    // The first column of each row.
    private static void Store(ExpertArgs a, ArrayView<float> partials, float factor)
    {
        int warps = Group.DimX >> 5;
        for (int i = Group.IdxX; i < TileStream.Sums; i += Group.DimX)
        {
            int n = (Grid.IdxX * TileStream.Rows) + (i >> 3);
            if (n >= a.Width || (i & 7) > 0)
                continue;
            float gate = TileStream.Collect(partials, i, WarpSums, warps) * factor;
            float up = TileStream.Collect(partials, i + TileStream.Sums, WarpSums, warps) * factor;
            a.Activated[((long)Grid.IdxY * a.Width) + n] = Bf16.FromFloat(gate / (1f + XMath.Exp(-gate)) * up);
        }
    }
}
