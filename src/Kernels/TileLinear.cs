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

    /// <summary>[Experts] sums of a router's logits, empty without a router; where they become zero, with what stands behind them.</summary>
    public ArrayView<long> RouterSums;

    /// <summary>[Experts, N] BF16.</summary>
    public ArrayView<ushort> Router;

    /// <summary>[N] BF16, the gains of the norm before the router.</summary>
    public ArrayView<ushort> RouterGain;
}

/// <summary>
/// A product of one row in a decode step: y[n] = Σ_k x[k] · W[n, k], with the norm before it or the residual addition and the next router
/// behind it.
/// </summary>
/// <remarks>
/// A block has 16 rows of W, so that 2,048 rows still occupy 128 multiprocessors; its warps take turns along K and add up in shared memory, in
/// a fixed tree. Weights are requested before the kernel waits for the launch before it, in a graph. A router's logits are linear in the residual stream
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

    /// <summary>Shared memory of a block besides: its columns of the residual stream.</summary>
    public const int StaticBytes = TileStream.Rows * sizeof(float);

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes<TSink>(int warps, int k, int experts)
        where TSink : struct, ITileSink => TileRow.ScratchBytes + (2 * k) + RouterBytes<TSink>(experts) + (warps * TileStream.Sums * sizeof(float));

    public static void Run<TFormat, TInputs, TSink, TTurns>(TileLinearArgs a)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TSink : struct, ITileSink
        where TTurns : struct, ITileTurns
    {
        ArrayView<float> columns = SharedMemory.Allocate<float>(TileStream.Rows);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int lane = Group.IdxX & 31, warps = Group.DimX >> 5, turn = Group.IdxX >> 5, k = a.Weights.K;
        int routerStart = TileRow.ScratchBytes + (2 * k), routerBytes = RouterBytes<TSink>((int)a.RouterSums.Length);
        ArrayView<uint> row = shared.SubView(TileRow.ScratchBytes, 2 * k).Cast<uint>();
        ArrayView<uint> router = shared.SubView(routerStart, routerBytes).Cast<uint>();
        ArrayView<float> partials = shared.SubView(routerStart + routerBytes, warps * TileStream.Sums * sizeof(float)).Cast<float>();
        float factor = TileStream.MatrixScale<TFormat>(a.Weights, 0);
        F4 sum;
        if (TTurns.Count == 8)
            sum = StreamEight<TFormat, TInputs, TSink>(a, shared, row, router, ref factor);
        else if (TTurns.Count == 4)
            sum = StreamFour<TFormat, TInputs, TSink>(a, shared, row, router, ref factor);
        else
            sum = StreamAny<TFormat, TInputs, TSink>(a, shared, row, router, ref factor);
        TileStream.Publish(partials, turn * TileStream.Sums, lane, sum);
        // Every row of a tile exists: N is a multiple of 16. The old value is requested while the others are waited for.
        float old = 0, gain = 1;
        if (TSink.IsResidual && Group.IdxX < TileStream.Sums)
        {
            old = a.Residual[(Grid.IdxX * TileStream.Rows) + (Group.IdxX >> 3)];
            if (a.RouterSums.Length > 0)
                gain = Bf16.ToFloat(a.RouterGain[(Grid.IdxX * TileStream.Rows) + (Group.IdxX >> 3)]);
        }
        Block.Barrier(); // all warps' sums are there before they are added
        Finish<TSink>(a, partials, columns, (old, gain), factor);
        if (TSink.IsResidual && a.RouterSums.Length > 0)
        {
            Block.Barrier(); // the block's columns of the residual stream are there before they are multiplied
            AddRouter(a.RouterSums, router, columns);
        }
    }

    // Four chunks are on their way before the kernel waits. Those past the end are the last one again.
    private static F4 StreamAny<TFormat, TInputs, TSink>(TileLinearArgs a, ArrayView<byte> shared, ArrayView<uint> row, ArrayView<uint> router, ref float factor)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TSink : struct, ITileSink
    {
        int warps = Group.DimX >> 5, c = Group.IdxX >> 5, count = Chunks<TFormat>(a);
        TilePlace place = TileStream.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, Group.IdxX & 31);
        TileChunk w0 = Load<TFormat>(a, place, c), w1 = Load<TFormat>(a, place, c + warps);
        TileChunk w2 = Load<TFormat>(a, place, c + (2 * warps)), w3 = Load<TFormat>(a, place, c + (3 * warps));
        Prepare<TInputs, TSink>(a, shared, row, router, ref factor);
        F4 sum = default;
        for (; c + (7 * warps) < count; c += 4 * warps)
        {
            sum = Multiply<TFormat>(row, w0, c, sum);
            w0 = Load<TFormat>(a, place, c + (4 * warps));
            sum = Multiply<TFormat>(row, w1, c + warps, sum);
            w1 = Load<TFormat>(a, place, c + (5 * warps));
            sum = Multiply<TFormat>(row, w2, c + (2 * warps), sum);
            w2 = Load<TFormat>(a, place, c + (6 * warps));
            sum = Multiply<TFormat>(row, w3, c + (3 * warps), sum);
            w3 = Load<TFormat>(a, place, c + (7 * warps));
        }
        if (c < count)
            sum = Multiply<TFormat>(row, w0, c, sum);
        if (c + warps < count)
            sum = Multiply<TFormat>(row, w1, c + warps, sum);
        if (c + (2 * warps) < count)
            sum = Multiply<TFormat>(row, w2, c + (2 * warps), sum);
        if (c + (3 * warps) < count)
            sum = Multiply<TFormat>(row, w3, c + (3 * warps), sum);
        return Rest<TFormat>(a, place, row, c + (4 * warps), sum);
    }

    // All four chunks are on their way before the kernel waits: as many as the output product of a layer gives a warp.
    private static F4 StreamFour<TFormat, TInputs, TSink>(TileLinearArgs a, ArrayView<byte> shared, ArrayView<uint> row, ArrayView<uint> router, ref float factor)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TSink : struct, ITileSink
    {
        int warps = Group.DimX >> 5, c = Group.IdxX >> 5;
        TilePlace place = TileStream.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, Group.IdxX & 31);
        TileChunk w0 = Load<TFormat>(a, place, c), w1 = Load<TFormat>(a, place, c + warps);
        TileChunk w2 = Load<TFormat>(a, place, c + (2 * warps)), w3 = Load<TFormat>(a, place, c + (3 * warps));
        Prepare<TInputs, TSink>(a, shared, row, router, ref factor);
        F4 sum = Multiply<TFormat>(row, w0, c, default);
        sum = Multiply<TFormat>(row, w1, c + warps, sum);
        sum = Multiply<TFormat>(row, w2, c + (2 * warps), sum);
        return Multiply<TFormat>(row, w3, c + (3 * warps), sum);
    }

    // A row that is still to be normed is waited for longer: six of the eight chunks that a layer gives a warp are on their way, the other two as soon as there is room.
    private static F4 StreamEight<TFormat, TInputs, TSink>(TileLinearArgs a, ArrayView<byte> shared, ArrayView<uint> row, ArrayView<uint> router, ref float factor)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TSink : struct, ITileSink
    {
        int warps = Group.DimX >> 5, c = Group.IdxX >> 5;
        TilePlace place = TileStream.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, Group.IdxX & 31);
        TileChunk w0 = Load<TFormat>(a, place, c), w1 = Load<TFormat>(a, place, c + warps), w2 = Load<TFormat>(a, place, c + (2 * warps));
        TileChunk w3 = Load<TFormat>(a, place, c + (3 * warps)), w4 = Load<TFormat>(a, place, c + (4 * warps)), w5 = Load<TFormat>(a, place, c + (5 * warps));
        Prepare<TInputs, TSink>(a, shared, row, router, ref factor);
        F4 sum = Multiply<TFormat>(row, w0, c, default);
        TileChunk w6 = Load<TFormat>(a, place, c + (6 * warps));
        sum = Multiply<TFormat>(row, w1, c + warps, sum);
        TileChunk w7 = Load<TFormat>(a, place, c + (7 * warps));
        sum = Multiply<TFormat>(row, w2, c + (2 * warps), sum);
        sum = Multiply<TFormat>(row, w3, c + (3 * warps), sum);
        sum = Multiply<TFormat>(row, w4, c + (4 * warps), sum);
        sum = Multiply<TFormat>(row, w5, c + (5 * warps), sum);
        sum = Multiply<TFormat>(row, w6, c + (6 * warps), sum);
        return Multiply<TFormat>(row, w7, c + (7 * warps), sum);
    }

    // What stands between the first requests and the first product.
    private static void Prepare<TInputs, TSink>(TileLinearArgs a, ArrayView<byte> shared, ArrayView<uint> row, ArrayView<uint> router, ref float factor)
        where TInputs : struct, ITileInputs
        where TSink : struct, ITileSink
    {
        GridDependency.Release();
        if (TSink.IsResidual)
            LoadRouter(a.Router, a.Weights.N, router);
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
        Block.Barrier(); // the row is there before anyone multiplies by it
        if (TInputs.IsNormed)
            factor *= TileRow.Factor(a.Source, a.Weights.K, shared.Cast<float>());
    }

    private static int Chunks<TFormat>(TileLinearArgs a)
        where TFormat : struct, IStreamedFormat => a.Weights.K / TileStream.ChunkCodes<TFormat>();

    // Past the end the last one again.
    private static TileChunk Load<TFormat>(TileLinearArgs a, TilePlace place, int chunk)
        where TFormat : struct, IStreamedFormat => TileStream.Load<TFormat>(a.Weights, place, 0, IntrinsicMath.Min(chunk, Chunks<TFormat>(a) - 1));

    // Chunks that are read when they are needed.
    private static F4 Rest<TFormat>(TileLinearArgs a, TilePlace place, ArrayView<uint> row, int first, F4 sum)
        where TFormat : struct, IStreamedFormat
    {
        for (int c = first; c < Chunks<TFormat>(a); c += Group.DimX >> 5)
            sum = Multiply<TFormat>(row, Load<TFormat>(a, place, c), c, sum);
        return sum;
    }

    private static F4 Multiply<TFormat>(ArrayView<uint> row, TileChunk w, int chunk, F4 sum)
        where TFormat : struct, IStreamedFormat
    {
        TileInputs x = TileStream.Inputs<TFormat, SharedTileMemory>(row, TileStream.InputWord<TFormat>(Group.IdxX & 31), chunk);
        return TileStream.Multiply<TFormat>(w, x, 1f, 1f, sum);
    }

    // Eight lanes a row, in the first four warps.
    private static void Finish<TSink>(TileLinearArgs a, ArrayView<float> partials, ArrayView<float> columns, (float Old, float Gain) residual, float factor)
        where TSink : struct, ITileSink
    {
        int row = Group.IdxX >> 3, n = (Grid.IdxX * TileStream.Rows) + row;
        if (Group.IdxX >= TileStream.Sums)
            return;
        float value = TileStream.CollectRow(partials, Group.DimX >> 5) * factor;
        if ((Group.IdxX & 7) > 0)
            return;
        if (!TSink.IsResidual)
        {
            a.Y[n] = Bf16.FromFloat(value);
            return;
        }
        value += residual.Old;
        a.Residual[n] = value;
        columns[row] = value * residual.Gain;
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
