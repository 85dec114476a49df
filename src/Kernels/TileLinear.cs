using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of a product of one row in a decode step.</summary>
internal struct TileLinearArgs
{
    public StreamedWeights Weights;
    public TileSource Source;

    /// <summary>[N] BF16, where the product is stored.</summary>
    public ArrayView<ushort> Y;

    /// <summary>[N] float32, where it is added.</summary>
    public ArrayView<float> Residual;

    /// <summary>[Experts] sums of a router's logits; empty without a router.</summary>
    public ArrayView<long> RouterSums;

    /// <summary>[Experts, N] BF16.</summary>
    public ArrayView<ushort> Router;

    /// <summary>[N] BF16, the gains of the norm before the router.</summary>
    public ArrayView<ushort> RouterGain;

    /// <summary>Of <see cref="TileRing"/>.</summary>
    public int Slots, RowStride;

    /// <summary>Warps of a team, which has a tile of 16 rows.</summary>
    public int Warps;
}

/// <summary>Where a product goes.</summary>
internal interface ITileSink
{
    /// <summary>Whether it is added to the residual stream, else stored in BF16.</summary>
    static abstract bool IsResidual { get; }
}

/// <summary>Stored in BF16; the router's sums become zero for the product that adds to them.</summary>
internal readonly struct TileStore : ITileSink
{
    public static bool IsResidual => false;
}

/// <summary>Added to the residual stream; what a block's 16 columns of it add to the router's logits goes there at once.</summary>
internal readonly struct TileAdd : ITileSink
{
    public static bool IsResidual => true;
}

/// <summary>
/// A product of one row in a decode step: y[n] = Σ_k x[k] · W[n, k], with the norm before it or the residual addition and the next router
/// behind it.
/// </summary>
/// <remarks>
/// A team of warps has 16 rows of W, so that 2,048 rows still occupy 128 multiprocessors; its warps take turns along K and add up in shared memory, in
/// a fixed tree. A block is one team or several; one that adds to the residual stream is one. Weights are requested, nearly all of them, before the kernel waits for the launch before it, in a graph. A router's logits are linear in the residual stream
/// but for the norm's factor, which is the same for all: each block adds its columns' share as a fixed-point integer, so the order of the
/// blocks does not matter, and no launch is needed for them.
/// </remarks>
internal static class TileLinear
{
    /// <summary>The router's sums count units of 2⁻³².</summary>
    public const float RouterUnit = 1f / 4294967296f;

    /// <summary>Bytes of a block's columns of the router: 16 BF16 an expert.</summary>
    private static int RouterBytes<TSink>(int experts)
        where TSink : struct, ITileSink => TSink.IsResidual ? experts * TileStream.Rows * sizeof(ushort) : 0;

    /// <summary>Where the warps' slots begin: on a 16-byte boundary.</summary>
    private static int RingStart<TSink>(int k, int experts)
        where TSink : struct, ITileSink => TileRow.ScratchBytes + (2 * k) + RouterBytes<TSink>(experts);

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes<TSink>(int ringBytes, int k, int experts)
        where TSink : struct, ITileSink => RingStart<TSink>(k, experts) + TileRing.BarrierBytes + ringBytes;

    private static ArrayView<uint> RouterColumns<TSink>(TileLinearArgs a, ArrayView<byte> shared)
        where TSink : struct, ITileSink => shared.SubView(TileRow.ScratchBytes + (2 * a.Weights.K), RouterBytes<TSink>((int)a.RouterSums.Length)).Cast<uint>();

    public static void Run<TFormat, TRing, TInputs, TSink>(TileLinearArgs a)
        where TFormat : struct, IStreamedFormat
        where TRing : struct, ITileRing
        where TInputs : struct, ITileInputs
        where TSink : struct, ITileSink
    {
        ArrayView<float> columns = SharedMemory.Allocate<float>(TileStream.Rows);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int lane = Group.IdxX & 31, warps = Group.DimX >> 5, turn = Group.IdxX >> 5, k = a.Weights.K, team = turn / a.Warps, thread = Group.IdxX - (team * a.Warps * 32);
        // Tiles beside each other are other blocks', so that blocks differ by one tile at most.
        int firstRow = ((team * Grid.DimX) + Grid.IdxX) * TileStream.Rows;
        bool owns = thread < TileStream.Sums && firstRow < a.Weights.N;
        int first = RingStart<TSink>(k, (int)a.RouterSums.Length), step = a.Slots * TileRing.SlotBytes<TFormat>(a.RowStride) / sizeof(float);
        TileRing ring = TileRing.Open<TFormat, TRing>(SharedWindow.Open(ref shared[0]) + (uint)first, turn, a.Slots, a.RowStride);
        F4 sum = Stream<TFormat, TRing, TInputs, TSink>(a, shared, ring, (firstRow, turn - (team * a.Warps)));
        // A warp's sums take the place of its weights.
        ArrayView<float> partials = shared.SubView(first + TileRing.BarrierBytes, warps * step * sizeof(float)).Cast<float>();
        WarpOps.Barrier(); // no lane reads weights any more
        TileStream.Publish(partials, turn * step, lane, sum);
        // Every row of a tile exists: N is a multiple of 16. The old value is requested while the others are waited for.
        float old = 0, gain = 1;
        if (TSink.IsResidual && owns)
        {
            old = a.Residual[firstRow + (thread >> 3)];
            if (a.RouterSums.Length > 0)
                gain = Bf16.ToFloat(a.RouterGain[firstRow + (thread >> 3)]);
        }
        Group.Barrier(); // all warps' sums are there before they are added
        float factor = TileStream.MatrixScale<TFormat>(a.Weights, 0);
        if (TInputs.IsNormed)
            factor *= TileRow.Factor(a.Source, k, shared.Cast<float>());
        if (owns)
        {
            float value = TileStream.CollectRow(partials, team * a.Warps * step, step, a.Warps, thread) * factor;
            if ((thread & 7) == 0)
                Finish<TSink>(a, columns, firstRow + (thread >> 3), (old, gain), value);
        }
        if (TSink.IsResidual && a.RouterSums.Length > 0)
        {
            Group.Barrier(); // the block's columns of the residual stream are there before they are multiplied
            AddRouter(a.RouterSums, RouterColumns<TSink>(a, shared), columns);
        }
    }

    private static F4 Stream<TFormat, TRing, TInputs, TSink>(TileLinearArgs a, ArrayView<byte> shared, TileRing ring, (int FirstRow, int Turn) own)
        where TFormat : struct, IStreamedFormat
        where TRing : struct, ITileRing
        where TInputs : struct, ITileInputs
        where TSink : struct, ITileSink
    {
        int strips = own.FirstRow < a.Weights.N ? TileRing.Strips<TFormat>(a.Weights.K) : 0;
        ArrayView<uint> row = shared.SubView(TileRow.ScratchBytes, 2 * a.Weights.K).Cast<uint>();
        TileAddresses at = TileRing.Locate<TFormat>(a.Weights, own.FirstRow, Group.IdxX & 31);
        for (int i = 0; i < ring.Slots; i++)
            Request<TFormat, TRing>(a, ring, at, (own.Turn + (i * a.Warps), strips), i);
        GridDependency.Release();
        if (TSink.IsResidual)
            LoadRouter(a.Router, a.Weights.N, RouterColumns<TSink>(a, shared));
        if (TInputs.IsNormed)
        {
            TileRowGains gains = TileRow.LoadGains(a.Source, (int)row.Length);
            GridDependency.Wait();
            TileRowStates states = TileRow.LoadStates(a.Source, (int)row.Length);
            TileRow.Norm(a.Source, row, shared.Cast<float>(), states, gains);
        }
        else
        {
            GridDependency.Wait();
            TileRow.Copy(a.Source.X.Cast<uint>(), row);
        }
        if (!TSink.IsResidual && Grid.IdxX == 0)
            Clear(a.RouterSums);
        Group.Barrier(); // the row is there before anyone multiplies by it
        F4 even = default, odd = default;
        for (int i = 0, strip = own.Turn; strip < strips; i++, strip += a.Warps)
        {
            TRing.Wait(ring, i, ring.Slots - 1);
            int chunks = TileRing.ChunksOf<TFormat>(a.Weights, strip);
            for (int j = 0; j < chunks; j += 2)
            {
                even = Multiply<TFormat>(row, TRing.Take<TFormat>(ring, a.Weights, at, (0, strip), i, j), (strip * TileRing.StripChunks) + j, even);
                if (j + 1 < chunks)
                    odd = Multiply<TFormat>(row, TRing.Take<TFormat>(ring, a.Weights, at, (0, strip), i, j + 1), (strip * TileRing.StripChunks) + j + 1, odd);
            }
            WarpOps.Barrier(); // no lane reads the slot any more
            Request<TFormat, TRing>(a, ring, at, (strip + (ring.Slots * a.Warps), strips), i + ring.Slots);
        }
        return TileStream.Add(even, odd);
    }

    // Beyond the last strip nothing is requested.
    private static void Request<TFormat, TRing>(TileLinearArgs a, TileRing ring, TileAddresses at, (int Strip, int Count) own, int index)
        where TFormat : struct, IStreamedFormat
        where TRing : struct, ITileRing
    {
        if (own.Strip < own.Count)
            TRing.Request<TFormat>(ring, a.Weights, at, (0, own.Strip), index);
        CpAsync.Commit();
    }

    private static F4 Multiply<TFormat>(ArrayView<uint> row, TileChunk w, int chunk, F4 sum)
        where TFormat : struct, IStreamedFormat
    {
        TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(row, TileStream.InputWord<TFormat>(Group.IdxX & 31), chunk);
        return TileStream.Multiply<TFormat>(w, x, 1f, 1f, sum);
    }

    private static void Finish<TSink>(TileLinearArgs a, ArrayView<float> columns, int n, (float Old, float Gain) residual, float value)
        where TSink : struct, ITileSink
    {
        if (!TSink.IsResidual)
        {
            a.Y[n] = Bf16.FromFloat(value);
            return;
        }
        value += residual.Old;
        a.Residual[n] = value;
        columns[n & (TileStream.Rows - 1)] = value * residual.Gain;
    }

    private static void Clear(ArrayView<long> sums)
    {
        for (int i = Group.IdxX; i < sums.Length; i += Group.DimX)
            sums[i] = 0;
    }

    /// <summary>A block's columns of a router [experts, n] in BF16, 16 an expert, into shared memory; n is a multiple of 16. A barrier must follow before they are used.</summary>
    public static void LoadRouter(ArrayView<ushort> weights, int n, ArrayView<uint> router)
    {
        ArrayView<uint> words = weights.Cast<uint>();
        for (int i = Group.IdxX * 4; i < router.Length; i += Group.DimX * 4)
            Mem.StoreShared(ref router[i], Mem.LoadReadOnly(ref words[((long)(i >> 3) * (n >> 1)) + (Grid.IdxX * (TileStream.Rows / 2)) + (i & 7)]));
    }

    /// <summary>Adds what 16 columns of a token's residual stream, times the gains, give to the experts' sums. Four lanes an expert, four columns each; all lanes take part in the exchange.</summary>
    public static void AddRouter(ArrayView<long> sums, ArrayView<uint> router, ArrayView<float> columns)
    {
        int experts = (int)sums.Length, quarter = Group.IdxX & 3;
        for (int first = 0; first < experts; first += Group.DimX >> 2)
        {
            int expert = first + (Group.IdxX >> 2);
            float part = 0;
            if (expert < experts)
            {
                U2 w = Mem.LoadShared2(ref router[(expert * (TileStream.Rows / 2)) + (2 * quarter)]);
                part = Fast.Fma(Bf16.High(w.X), columns[(4 * quarter) + 1], Bf16.Low(w.X) * columns[4 * quarter]);
                part = Fast.Fma(Bf16.High(w.Y), columns[(4 * quarter) + 3], Fast.Fma(Bf16.Low(w.Y), columns[(4 * quarter) + 2], part));
            }
            part += WarpOps.ShuffleXor(part, 1);
            part += WarpOps.ShuffleXor(part, 2);
            if (quarter == 0 && expert < experts)
                Atomic.Add(ref sums[expert], (long)(part * (1f / RouterUnit))); // integers: the order does not matter
        }
    }
}
