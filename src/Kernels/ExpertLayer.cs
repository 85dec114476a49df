using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of <see cref="ExpertLayer"/>.</summary>
internal struct ExpertLayerArgs
{
    /// <summary>Gate and up, and the token.</summary>
    public ExpertArgs Experts;

    public StreamedWeights Down;

    /// <summary>[TopK, Width] activations as they are posted: BF16 above, the lowest bit set. Behind them [tiles, parts − 1, 16] float32 sums of down, the lowest bit set. Zero before.</summary>
    public ArrayView<uint> Posted;
}

/// <summary>The weights of a warp's chunk of eight experts.</summary>
internal struct ExpertDownChunks
{
    public TileChunk W0, W1, W2, W3, W4, W5, W6, W7;
}

/// <summary>
/// A Mixture-of-Experts layer for one token of eight experts behind <see cref="RouterPosts"/> in one launch: <see cref="ExpertGateUp"/>, and down, whose weights are on their way before gate and up are done.
/// </summary>
/// <remarks>
/// Block (i, p) multiplies 16 gate rows and the 16 up rows beside them of the expert of pair p, and posts their activations: each word says by itself whether it is there. Three blocks beside each other then share 16 columns of the residual
/// stream, four warps with a chunk of every expert each; two post their sums, the first adds all up in a fixed order.
/// Blocks wait for each other, but need not run at the same time: whoever has waited for long does itself what is missing, with the same bits, so that blocks end and others find room.
/// </remarks>
internal static class ExpertLayer
{
    /// <summary>Blocks that share a tile of down.</summary>
    public const int Blocks = 3;

    /// <summary>Warps of a block.</summary>
    public const int Warps = 4;

    /// <summary>Experts of the token.</summary>
    public const int TopK = 8;

    /// <summary>Columns of down: a chunk of 64 for each warp of a tile.</summary>
    public const int Width = Blocks * Columns;

    // Of a block.
    private const int Columns = 64 * Warps;

    // Where the weights of the pairs are announced, behind their experts.
    private const int WeightsAnnounced = 16;

    // Round trips, about a millisecond in all: far more than a launch takes whose blocks all run.
    private const int Patience = 1000;

    private static int RowStart(int k) => ExpertGateUp.RowBytes(k) + (Warps * ExpertGateUp.WarpSums * sizeof(float));

    /// <summary>Dynamic shared memory of a block, K columns of gate and up: their row and sums, which are also those of down, and down's rows of inputs.</summary>
    public static int SharedBytes(int k) => RowStart(k) + (2 * TopK * Columns);

    /// <summary>Words of what is posted, for so many rows of down.</summary>
    public static int PostedLength(int n) => (TopK * Width) + (n / TileStream.Rows * (Blocks - 1) * TileStream.Rows);

    public static void Run<TFormat>(ExpertLayerArgs a)
        where TFormat : struct, IStreamedFormat
    {
        ArrayView<int> found = SharedMemory.Allocate<int>(1 + RouterSums.ChoiceWords);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int k = a.Experts.Weights.K, part = Grid.IdxX % Blocks, tile = ((Grid.IdxY * Grid.DimX) + Grid.IdxX) / Blocks;
        ArrayView<uint> inputs = shared.SubView(RowStart(k), 2 * TopK * Columns).Cast<uint>();
        ArrayView<uint> others = a.Posted.SubView((TopK * Width) + (tile * (Blocks - 1) * TileStream.Rows), (Blocks - 1) * TileStream.Rows);
        int expert = Route(a.Experts, shared, found);
        uint told = 0;
        ExpertSums sums = Stream<TFormat>(a.Experts, shared, expert, found, ref told);
        told = Await(a.Experts.Router, told);
        ExpertDownChunks w = Request<TFormat>(a.Down, tile, part, told);
        Post<TFormat>(a, shared, Grid.IdxX, Grid.IdxY, expert, sums);
        float mine = 0;
        int current = part;
        while (true)
        {
            if (Fetch(a.Posted, inputs, current))
            {
                Help<TFormat>(a, shared, found, told);
                w = Request<TFormat>(a.Down, tile, current, told);
                continue;
            }
            float sum = Add(a, shared, Multiply<TFormat>(inputs, w, told));
            if (current == 0)
                mine = sum;
            else if (Group.IdxX < TileStream.Rows)
                Mem.StoreRelaxed(ref others[((current - 1) * TileStream.Rows) + Group.IdxX], Interop.FloatAsInt(sum) | 1);
            if (part > 0)
                break;
            // The first block adds up; parts that nobody has posted are its own then.
            uint other = Other(others);
            current = Group.BarrierOr(other == 0 & Group.IdxX < TileStream.Rows) ? 1 : Group.BarrierOr(other == 0 & Group.IdxX < 2 * TileStream.Rows) ? 2 : 0;
            if (current == 0)
            {
                Finish(a, tile, mine, other);
                break;
            }
            w = Request<TFormat>(a.Down, tile, current, told);
        }
        // What the choice was made from, by the block that has written it down: all others find the choice announced.
        if (ExpertGateUp.StoresRoutingBlock(a.Experts))
            for (int i = Group.IdxX; i < a.Experts.Router.Posts.Length; i += Group.DimX)
                a.Experts.Router.Posts[i] = 0;
    }

    // As ExpertGateUp routes behind a router that posts. A block that begins late may find the logits cleared; the choice is announced then.
    private static int Route(ExpertArgs a, ArrayView<byte> shared, ArrayView<int> found)
    {
        if (Group.IdxX >= 32)
            TileRow.CopyBesideFirst(a.Source.X.Cast<uint>(), ExpertGateUp.Row(a, shared));
        else
        {
            int copy = (Grid.IdxX + Grid.IdxY) & (RouterPosts.Copies - 1);
            uint told = 0;
            RouterChoice choice = RouterSums.LoadPosts(a.Router, copy);
            bool there = RouterSums.AreThere(choice);
            for (int i = 0; !there & told == 0 & i < RouterSums.Patience; i++)
            {
                if (i >= Patience)
                {
                    // The launch before has ended: what is announced is of this one.
                    GridDependency.Wait();
                    told = Mem.LoadRelaxed(ref a.Router.Announced[Grid.IdxY]);
                }
                choice = RouterSums.LoadPosts(a.Router, copy);
                there = RouterSums.AreThere(choice);
            }
            if (!there)
                choice = RouterSums.LastPosts(a.Router, copy);
            choice = RouterSums.Select(choice, Grid.IdxY + 1);
            if (ExpertGateUp.StoresRouting(a))
                RouterSums.Keep(ExpertGateUp.Choice(found), choice);
            if (Group.IdxX == 0)
                found[0] = told != 0 ? (int)told - 1 : choice.LastExpert;
        }
        Group.Barrier(); // the row and the expert are there before anyone uses them
        return found[0];
    }

    // As ExpertGateUp streams; what is announced is asked for when little is left to multiply.
    private static ExpertSums Stream<TFormat>(ExpertArgs a, ArrayView<byte> shared, int expert, ArrayView<int> found, ref uint told)
        where TFormat : struct, IStreamedFormat
    {
        ExpertRows rows = Locate<TFormat>(a, Grid.IdxX, expert);
        int c = Group.IdxX >> 5, count = a.Weights.K / TileStream.ChunkCodes<TFormat>(), last = count - 1;
        ExpertChunk w0 = ExpertGateUp.Load<TFormat>(a, rows, IntrinsicMath.Min(c, last)), w1 = ExpertGateUp.Load<TFormat>(a, rows, IntrinsicMath.Min(c + Warps, last));
        ExpertChunk w2 = ExpertGateUp.Load<TFormat>(a, rows, IntrinsicMath.Min(c + (2 * Warps), last));
        ArrayView<uint> x = ExpertGateUp.Row(a, shared);
        ExpertGateUp.Follow(a, found);
        if (ExpertGateUp.StoresRouting(a))
        {
            float weight = ExpertGateUp.StoreRouting(a, RouterSums.Kept(ExpertGateUp.Choice(found)), 1);
            // Never zero as a word, not even where the weight is.
            if (Group.IdxX < TopK)
                Mem.StoreRelaxed(ref a.Router.Announced[WeightsAnnounced + Group.IdxX], Interop.FloatAsInt(weight) + 1);
        }
        ExpertSums sums = default;
        for (; c + (2 * Warps) < count; c += 3 * Warps)
        {
            ExpertGateUp.Multiply<TFormat>(x, w0, c, ref sums);
            w0 = ExpertGateUp.Load<TFormat>(a, rows, IntrinsicMath.Min(c + (3 * Warps), last));
            ExpertGateUp.Multiply<TFormat>(x, w1, c + Warps, ref sums);
            w1 = ExpertGateUp.Load<TFormat>(a, rows, IntrinsicMath.Min(c + (4 * Warps), last));
            ExpertGateUp.Multiply<TFormat>(x, w2, c + (2 * Warps), ref sums);
            w2 = ExpertGateUp.Load<TFormat>(a, rows, IntrinsicMath.Min(c + (5 * Warps), last));
        }
        told = Told(a.Router);
        if (c < count)
            ExpertGateUp.Multiply<TFormat>(x, w0, c, ref sums);
        if (c + Warps < count)
            ExpertGateUp.Multiply<TFormat>(x, w1, c + Warps, ref sums);
        return sums;
    }

    private static ExpertRows Locate<TFormat>(ExpertArgs a, int tile, int expert)
        where TFormat : struct, IStreamedFormat
    {
        ExpertRows rows = default;
        rows.Expert = expert;
        rows.Gate = TileStream.Locate<TFormat>(a.Weights, tile * TileStream.Rows, Group.IdxX & 31);
        rows.Up = TileStream.Locate<TFormat>(a.Weights, (tile * TileStream.Rows) + a.Width, Group.IdxX & 31);
        return rows;
    }

    // What is announced, a word a lane: lane j has 1 + the expert of pair j, lane 16 + j its weight as a word.
    private static uint Told(RouterArgs a) => (Group.IdxX & 15) < TopK ? Mem.LoadRelaxed(ref a.Announced[Group.IdxX & 31]) : 1;

    private static uint Await(RouterArgs a, uint told)
    {
        for (int i = 0; WarpOps.Any(told == 0 ? 1u : 0u) != 0; i++)
        {
            told = Told(a);
            if (i >= Patience)
                told = Choose(a, told);
        }
        return told;
    }

    // The block that announces may not have begun: the warp chooses itself while the logits are there, and announces the same.
    private static uint Choose(RouterArgs a, uint told)
    {
        RouterChoice choice = RouterSums.LoadPosts(a, 0);
        if (!RouterSums.AreThere(choice) || WarpOps.Any(told == 0 ? 1u : 0u) == 0)
            return told;
        choice = RouterSums.Select(choice, TopK);
        int lane = Group.IdxX & 31;
        uint weight = Interop.FloatAsInt(RouterSums.Weight(a, choice, TopK, 1)) + 1, expert = (uint)choice.ChosenExpert + 1;
        if (lane < TopK)
        {
            Mem.StoreRelaxed(ref a.Announced[lane], expert);
            Mem.StoreRelaxed(ref a.Announced[WeightsAnnounced + lane], weight);
        }
        weight = WarpOps.Shuffle(weight, lane & 15);
        return (lane & 15) >= TopK ? 1 : lane < WeightsAnnounced ? expert : weight;
    }

    private static ExpertDownChunks Request<TFormat>(StreamedWeights down, int tile, int part, uint told)
        where TFormat : struct, IStreamedFormat
    {
        TilePlace place = TileStream.Locate<TFormat>(down, tile * TileStream.Rows, Group.IdxX & 31);
        int chunk = (part * Warps) + (Group.IdxX >> 5);
        ExpertDownChunks w = default;
        w.W0 = TileStream.Load<TFormat>(down, place, (int)WarpOps.Shuffle(told, 0) - 1, chunk);
        w.W1 = TileStream.Load<TFormat>(down, place, (int)WarpOps.Shuffle(told, 1) - 1, chunk);
        w.W2 = TileStream.Load<TFormat>(down, place, (int)WarpOps.Shuffle(told, 2) - 1, chunk);
        w.W3 = TileStream.Load<TFormat>(down, place, (int)WarpOps.Shuffle(told, 3) - 1, chunk);
        w.W4 = TileStream.Load<TFormat>(down, place, (int)WarpOps.Shuffle(told, 4) - 1, chunk);
        w.W5 = TileStream.Load<TFormat>(down, place, (int)WarpOps.Shuffle(told, 5) - 1, chunk);
        w.W6 = TileStream.Load<TFormat>(down, place, (int)WarpOps.Shuffle(told, 6) - 1, chunk);
        w.W7 = TileStream.Load<TFormat>(down, place, (int)WarpOps.Shuffle(told, 7) - 1, chunk);
        return w;
    }

    // Sums of a tile of gate and up become activations, which the whole grid waits for.
    private static void Post<TFormat>(ExpertLayerArgs a, ArrayView<byte> shared, int tile, int pair, int expert, ExpertSums sums)
        where TFormat : struct, IStreamedFormat
    {
        int rowBytes = ExpertGateUp.RowBytes(a.Experts.Weights.K), lane = Group.IdxX & 31, start = (Group.IdxX >> 5) * ExpertGateUp.WarpSums;
        ArrayView<float> partials = shared.SubView(rowBytes, shared.Length - rowBytes).Cast<float>();
        TileStream.Publish(partials, start, lane, sums.Gate);
        TileStream.Publish(partials, start + TileStream.Sums, lane, sums.Up);
        // All warps' sums are there before they are added.
        Group.Barrier();
        if (Group.IdxX >= TileStream.Rows)
            return;
        float factor = TileStream.MatrixScale<TFormat>(a.Experts.Weights, expert);
        float gate = TileStream.Collect(partials, Group.IdxX * TileStream.Columns, ExpertGateUp.WarpSums, Warps) * factor;
        float up = TileStream.Collect(partials, (Group.IdxX * TileStream.Columns) + TileStream.Sums, ExpertGateUp.WarpSums, Warps) * factor;
        uint value = Bf16.FromFloat(gate / (1f + XMath.Exp(-gate)) * up);
        Mem.StoreRelaxed(ref a.Posted[(pair * Width) + (tile * TileStream.Rows) + Group.IdxX], (value << 16) | 1);
    }

    // The block's columns of all activations, four by four; whether some did not come.
    private static bool Fetch(ArrayView<uint> posted, ArrayView<uint> inputs, int part)
    {
        const int Quads = Columns / 4, Pairs = 32 * Warps / Quads, Step = Pairs * Width * sizeof(uint);
        int pair = Group.IdxX / Quads, quad = Group.IdxX % Quads, first = (pair * Width) + (part * Columns) + (4 * quad);
        U4 x0 = Mem.LoadRelaxedFour(ref posted[first], 0), x1 = Mem.LoadRelaxedFour(ref posted[first], Step);
        U4 x2 = Mem.LoadRelaxedFour(ref posted[first], 2 * Step), x3 = Mem.LoadRelaxedFour(ref posted[first], 3 * Step);
        for (int i = 0; (Lacks(x0) | Lacks(x1) | Lacks(x2) | Lacks(x3)) & i < Patience; i++)
        {
            if (Lacks(x0))
                x0 = Mem.LoadRelaxedFour(ref posted[first], 0);
            if (Lacks(x1))
                x1 = Mem.LoadRelaxedFour(ref posted[first], Step);
            if (Lacks(x2))
                x2 = Mem.LoadRelaxedFour(ref posted[first], 2 * Step);
            if (Lacks(x3))
                x3 = Mem.LoadRelaxedFour(ref posted[first], 3 * Step);
        }
        const int Row = Columns / 2;
        int word = (pair * Row) + (2 * quad);
        Store(inputs, word, x0);
        Store(inputs, word + (Pairs * Row), x1);
        Store(inputs, word + (2 * Pairs * Row), x2);
        Store(inputs, word + (3 * Pairs * Row), x3);
        // Also a barrier: inputs are there before anyone multiplies by them.
        return Group.BarrierOr(Lacks(x0) | Lacks(x1) | Lacks(x2) | Lacks(x3));
    }

    private static bool Lacks(U4 x) => x.X == 0 | x.Y == 0 | x.Z == 0 | x.W == 0;

    private static void Store(ArrayView<uint> inputs, int word, U4 x)
    {
        inputs[word] = (x.X >> 16) | (x.Y & 0xffff0000u);
        inputs[word + 1] = (x.Z >> 16) | (x.W & 0xffff0000u);
    }

    // The tiles of gate and up that nobody has posted yet, one after another.
    private static void Help<TFormat>(ExpertLayerArgs a, ArrayView<byte> shared, ArrayView<int> found, uint told)
        where TFormat : struct, IStreamedFormat
    {
        if (Group.IdxX < TopK)
            found[1 + Group.IdxX] = (int)told - 1;
        for (int pair = 0; pair < TopK; pair++)
        {
            for (int tile = 0; tile < Grid.DimX; tile++)
            {
                bool lacks = Group.IdxX < TileStream.Rows && Mem.LoadRelaxed(ref a.Posted[(pair * Width) + (tile * TileStream.Rows) + Group.IdxX]) == 0;
                if (!Group.BarrierOr(lacks))
                    continue;
                int expert = found[1 + pair];
                Post<TFormat>(a, shared, tile, pair, expert, StreamAgain<TFormat>(a.Experts, shared, tile, expert));
                Group.Barrier(); // sums are read before the next ones are written
            }
        }
    }

    private static ExpertSums StreamAgain<TFormat>(ExpertArgs a, ArrayView<byte> shared, int tile, int expert)
        where TFormat : struct, IStreamedFormat
    {
        ExpertRows rows = Locate<TFormat>(a, tile, expert);
        int count = a.Weights.K / TileStream.ChunkCodes<TFormat>();
        ArrayView<uint> x = ExpertGateUp.Row(a, shared);
        ExpertSums sums = default;
        for (int c = Group.IdxX >> 5; c < count; c += Warps)
            ExpertGateUp.Multiply<TFormat>(x, ExpertGateUp.Load<TFormat>(a, rows, c), c, ref sums);
        return sums;
    }

    private static F4 Multiply<TFormat>(ArrayView<uint> inputs, ExpertDownChunks w, uint told)
        where TFormat : struct, IStreamedFormat
    {
        F4 sum = Multiply<TFormat>(inputs, w.W0, 0, told, default);
        sum = Multiply<TFormat>(inputs, w.W1, 1, told, sum);
        sum = Multiply<TFormat>(inputs, w.W2, 2, told, sum);
        sum = Multiply<TFormat>(inputs, w.W3, 3, told, sum);
        sum = Multiply<TFormat>(inputs, w.W4, 4, told, sum);
        sum = Multiply<TFormat>(inputs, w.W5, 5, told, sum);
        sum = Multiply<TFormat>(inputs, w.W6, 6, told, sum);
        return Multiply<TFormat>(inputs, w.W7, 7, told, sum);
    }

    private static F4 Multiply<TFormat>(ArrayView<uint> inputs, TileChunk w, int pair, uint told, F4 sum)
        where TFormat : struct, IStreamedFormat
    {
        TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(inputs, (pair * (Columns / 2)) + TileStream.InputWord<TFormat>(Group.IdxX & 31), Group.IdxX >> 5);
        float weight = Interop.IntAsFloat(WarpOps.Shuffle(told, WeightsAnnounced + pair) - 1);
        return TileStream.Multiply<TFormat>(w, x, weight, weight, sum);
    }

    // A row's sum over the block's warps, in their order, by the first 16 threads.
    private static float Add(ExpertLayerArgs a, ArrayView<byte> shared, F4 sum)
    {
        int rowBytes = ExpertGateUp.RowBytes(a.Experts.Weights.K);
        ArrayView<float> partials = shared.SubView(rowBytes, shared.Length - rowBytes).Cast<float>();
        TileStream.Publish(partials, (Group.IdxX >> 5) * TileStream.Sums, Group.IdxX & 31, sum);
        // All warps' sums are there before they are added.
        Group.Barrier();
        return Group.IdxX < TileStream.Rows ? TileStream.Collect(partials, Group.IdxX * TileStream.Columns, TileStream.Sums, Warps) : 0;
    }

    // What the other blocks of a tile post, a word a thread.
    private static uint Other(ArrayView<uint> others)
    {
        uint other = 0;
        for (int i = 0; Group.IdxX < others.Length & other == 0 & i < Patience; i++)
            other = Mem.LoadRelaxed(ref others[Group.IdxX]);
        return other;
    }

    private static void Finish(ExpertLayerArgs a, int tile, float mine, uint other)
    {
        if (Group.IdxX >= 32)
            return;
        float second = Interop.IntAsFloat(WarpOps.Shuffle(other, (Group.IdxX + TileStream.Rows) & 31));
        int row = (tile * TileStream.Rows) + Group.IdxX;
        if (Group.IdxX < TileStream.Rows & row < a.Down.N)
            a.Experts.Residual[row] += mine + Interop.IntAsFloat(other) + second;
    }
}
