using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of a product of one row in a decode step.</summary>
internal struct TileLinearArgs
{
    /// <summary>Stamps.</summary>
    public ArrayView<long> Stamps;

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

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes<TSink>(int warps, int k, int experts)
        where TSink : struct, ITileSink => TileRow.ScratchBytes + (2 * k) + RouterBytes<TSink>(experts) + (warps * TileStream.Sums * sizeof(float));

    public static void Run<TFormat, TInputs, TSink>(TileLinearArgs a)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TSink : struct, ITileSink
    {
        Clock.Mark(a.Stamps, Grid.IdxX, 0);
        ArrayView<float> columns = SharedMemory.Allocate<float>(TileStream.Rows);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int lane = Group.IdxX & 31, warps = Group.DimX >> 5, turn = Group.IdxX >> 5, k = a.Weights.K;
        int routerStart = TileRow.ScratchBytes + (2 * k), routerBytes = RouterBytes<TSink>((int)a.RouterSums.Length);
        ArrayView<uint> row = shared.SubView(TileRow.ScratchBytes, 2 * k).Cast<uint>();
        ArrayView<uint> router = shared.SubView(routerStart, routerBytes).Cast<uint>();
        ArrayView<float> partials = shared.SubView(routerStart + routerBytes, warps * TileStream.Sums * sizeof(float)).Cast<float>();
        F4 sum = Stream<TFormat, TInputs, TSink>(a, shared, row, router);
        TileStream.Publish(partials, turn * TileStream.Sums, lane, sum);
        // Every row of a tile exists: N is a multiple of 16. The old value is requested while the others are waited for.
        float old = 0, gain = 1;
        if (TSink.IsResidual && Group.IdxX < TileStream.Sums)
        {
            old = a.Residual[(Grid.IdxX * TileStream.Rows) + (Group.IdxX >> 3)];
            if (a.RouterSums.Length > 0)
                gain = Bf16.ToFloat(a.RouterGain[(Grid.IdxX * TileStream.Rows) + (Group.IdxX >> 3)]);
        }
        Group.Barrier(); // all warps' sums are there before they are added
        Clock.Mark(a.Stamps, Grid.IdxX, 3);
        float factor = TileStream.MatrixScale<TFormat>(a.Weights, 0);
        if (TInputs.IsNormed)
            factor *= TileRow.Factor(a.Source, k, shared.Cast<float>());
        Finish<TSink>(a, partials, columns, (old, gain), factor);
        if (TSink.IsResidual && a.RouterSums.Length > 0)
        {
            Group.Barrier(); // the block's columns of the residual stream are there before they are multiplied
            AddRouter(a.RouterSums, router, columns);
        }
        Clock.Mark(a.Stamps, Grid.IdxX, 4);
    }

    private static F4 Stream<TFormat, TInputs, TSink>(TileLinearArgs a, ArrayView<byte> shared, ArrayView<uint> row, ArrayView<uint> router)
        where TFormat : struct, IStreamedFormat
        where TInputs : struct, ITileInputs
        where TSink : struct, ITileSink
    {
        int lane = Group.IdxX & 31, warps = Group.DimX >> 5, c = Group.IdxX >> 5;
        int count = a.Weights.K / TileStream.ChunkCodes<TFormat>(), last = count - 1;
        TilePlace place = TileStream.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, lane);
        TileChunk w0 = TileStream.Load<TFormat>(a.Weights, place, 0, IntrinsicMath.Min(c, last)), w1 = TileStream.Load<TFormat>(a.Weights, place, 0, IntrinsicMath.Min(c + warps, last));
        TileChunk w2 = TileStream.Load<TFormat>(a.Weights, place, 0, IntrinsicMath.Min(c + (2 * warps), last)), w3 = TileStream.Load<TFormat>(a.Weights, place, 0, IntrinsicMath.Min(c + (3 * warps), last));
        GridDependency.Release();
        if (TSink.IsResidual)
            LoadRouter(a.Router, a.Weights.N, router);
        if (TInputs.IsNormed)
        {
            TileRowGains gains = TileRow.LoadGains(a.Source, (int)row.Length);
            GridDependency.Wait();
            Clock.Mark(a.Stamps, Grid.IdxX, 1);
            TileRowStates states = TileRow.LoadStates(a.Source, (int)row.Length);
            TileRow.Norm(a.Source, row, shared.Cast<float>(), states, gains);
        }
        else
        {
            GridDependency.Wait();
            Clock.Mark(a.Stamps, Grid.IdxX, 1);
            TileRow.Copy(a.Source.X.Cast<uint>(), row);
        }
        if (!TSink.IsResidual && Grid.IdxX == 0)
            Clear(a.RouterSums);
        Group.Barrier(); // the row is there before anyone multiplies by it
        Clock.Mark(a.Stamps, Grid.IdxX, 2);
        F4 sum = default;
        // A layer's products give a warp four or eight chunks: nothing is read in vain, and what is left over elsewhere is read when it is needed.
        for (; c + (7 * warps) < count; c += 4 * warps)
        {
            sum = Multiply<TFormat>(row, w0, c, sum);
            w0 = TileStream.Load<TFormat>(a.Weights, place, 0, c + (4 * warps));
            sum = Multiply<TFormat>(row, w1, c + warps, sum);
            w1 = TileStream.Load<TFormat>(a.Weights, place, 0, c + (5 * warps));
            sum = Multiply<TFormat>(row, w2, c + (2 * warps), sum);
            w2 = TileStream.Load<TFormat>(a.Weights, place, 0, c + (6 * warps));
            sum = Multiply<TFormat>(row, w3, c + (3 * warps), sum);
            w3 = TileStream.Load<TFormat>(a.Weights, place, 0, c + (7 * warps));
        }
        if (c < count)
            sum = Multiply<TFormat>(row, w0, c, sum);
        if (c + warps < count)
            sum = Multiply<TFormat>(row, w1, c + warps, sum);
        if (c + (2 * warps) < count)
            sum = Multiply<TFormat>(row, w2, c + (2 * warps), sum);
        if (c + (3 * warps) < count)
            sum = Multiply<TFormat>(row, w3, c + (3 * warps), sum);
        for (c += 4 * warps; c < count; c += warps)
            sum = Multiply<TFormat>(row, TileStream.Load<TFormat>(a.Weights, place, 0, c), c, sum);
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
