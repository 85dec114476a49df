using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of the product that adds to the residual streams of up to 16 tokens.</summary>
internal struct TileRowsArgs
{
    public StreamedWeights Weights;

    /// <summary>[Tokens, K] BF16.</summary>
    public ArrayView<ushort> X;

    /// <summary>[Tokens, N] float32, added to.</summary>
    public ArrayView<float> Residual;

    /// <summary>[Tokens, Experts] sums of the router's logits, added to.</summary>
    public ArrayView<long> RouterSums;

    /// <summary>[Experts, N] BF16.</summary>
    public ArrayView<ushort> Router;

    /// <summary>[N] BF16, the gains of the norm before the router.</summary>
    public ArrayView<ushort> RouterGain;

    /// <summary>[Tokens]: negative where there is no token.</summary>
    public ArrayView<int> Positions;

    public int Tokens;
    public int Experts;
}

/// <summary>One lane's inputs of a chunk, of each tile of x.</summary>
internal struct TileRowsInputs
{
    public TileInputs Tile0, Tile1;
}

/// <summary>
/// <see cref="TileLinear"/> for up to 16 tokens, with the residual addition and the router behind it: r[t, n] += Σ_k x[t, k] · W[n, k], and what the block's 16
/// columns of r add to each token's sums of the router.
/// </summary>
/// <remarks>
/// A token is a column of the mma and does not see the others; warps take turns along K and add up in a fixed tree, whatever the number of tokens. The router's sums are integers,
/// whose order does not matter. So a token's bits do not depend on who else is in the batch.
/// </remarks>
internal static class TileRows
{
    public const int MostTokens = 16;

    private static int RouterBytes(int experts) => experts * TileStream.Rows * sizeof(ushort);

    /// <summary>Dynamic shared memory of a block.</summary>
    public static int SharedBytes<TTiles>(int warps, int experts)
        where TTiles : struct, ITiles => RouterBytes(experts) + (warps * TTiles.Count * TileStream.Sums * sizeof(float));

    public static void Run<TFormat, TTiles>(TileRowsArgs a)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        ArrayView<float> columns = SharedMemory.Allocate<float>(MostTokens * TileStream.Rows);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int lane = Group.IdxX & 31, warps = Group.DimX >> 5, sums = TTiles.Count * TileStream.Sums, routerBytes = RouterBytes(a.Experts);
        ArrayView<uint> router = shared.SubView(0, routerBytes).Cast<uint>();
        ArrayView<float> partials = shared.SubView(routerBytes, warps * sums * sizeof(float)).Cast<float>();
        F4 sum0 = default, sum1 = default;
        Stream<TFormat, TTiles>(a, router, ref sum0, ref sum1);
        int start = (Group.IdxX >> 5) * sums;
        TileStream.Publish(partials, start, lane, sum0);
        if (TTiles.Count == 2)
            TileStream.Publish(partials, start + TileStream.Sums, lane, sum1);
        Block.Barrier(); // all warps' sums are there before they are added
        float factor = TileStream.MatrixScale<TFormat>(a.Weights, 0);
        for (int i = Group.IdxX; i < sums; i += Group.DimX)
        {
            int token = ((i >> 7) * TileStream.Columns) + (i & 7), row = (i >> 3) & 15, n = (Grid.IdxX * TileStream.Rows) + row;
            if (token >= a.Tokens)
                continue;
            // Every row of a tile exists: N is a multiple of 16.
            long target = ((long)token * a.Weights.N) + n;
            float value = a.Residual[target] + (TileStream.CollectAlone(partials, i, sums, warps) * factor);
            a.Residual[target] = value;
            columns[(token * TileStream.Rows) + row] = value * Bf16.ToFloat(a.RouterGain[n]);
        }
        Block.Barrier(); // the block's columns of the residual streams are there before they are multiplied
        for (int token = 0; token < a.Tokens; token++)
            if (a.Positions[token] >= 0)
                TileLinear.AddRouter(a.RouterSums.SubView((long)token * a.Experts, a.Experts), router, columns.SubView(token * TileStream.Rows, TileStream.Rows));
    }

    // As in TileLinear, with inputs from where they are: blocks beside each other read the same rows. Those of the next chunk are requested before a chunk is multiplied,
    // and before the weights that take its place, behind which they would have to wait.
    private static void Stream<TFormat, TTiles>(TileRowsArgs a, ArrayView<uint> router, ref F4 sum0, ref F4 sum1)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int lane = Group.IdxX & 31, warps = Group.DimX >> 5, c = Group.IdxX >> 5;
        int count = a.Weights.K / TileStream.ChunkCodes<TFormat>(), last = count - 1;
        TilePlace place = TileStream.Locate<TFormat>(a.Weights, Grid.IdxX * TileStream.Rows, lane);
        TileChunk w0 = TileStream.Load<TFormat>(a.Weights, place, 0, IntrinsicMath.Min(c, last)), w1 = TileStream.Load<TFormat>(a.Weights, place, 0, IntrinsicMath.Min(c + warps, last));
        TileChunk w2 = TileStream.Load<TFormat>(a.Weights, place, 0, IntrinsicMath.Min(c + (2 * warps), last)), w3 = TileStream.Load<TFormat>(a.Weights, place, 0, IntrinsicMath.Min(c + (3 * warps), last));
        GridDependency.Release();
        TileLinear.LoadRouter(a.Router, a.Weights.N, router);
        GridDependency.Wait();
        TileRowsInputs x = Inputs<TFormat, TTiles>(a, IntrinsicMath.Min(c, last)), next;
        for (; c + (7 * warps) < count; c += 4 * warps)
        {
            next = Inputs<TFormat, TTiles>(a, c + warps);
            Multiply<TFormat, TTiles>(w0, x, ref sum0, ref sum1);
            w0 = TileStream.Load<TFormat>(a.Weights, place, 0, c + (4 * warps));
            x = Inputs<TFormat, TTiles>(a, c + (2 * warps));
            Multiply<TFormat, TTiles>(w1, next, ref sum0, ref sum1);
            w1 = TileStream.Load<TFormat>(a.Weights, place, 0, c + (5 * warps));
            next = Inputs<TFormat, TTiles>(a, c + (3 * warps));
            Multiply<TFormat, TTiles>(w2, x, ref sum0, ref sum1);
            w2 = TileStream.Load<TFormat>(a.Weights, place, 0, c + (6 * warps));
            x = Inputs<TFormat, TTiles>(a, c + (4 * warps));
            Multiply<TFormat, TTiles>(w3, next, ref sum0, ref sum1);
            w3 = TileStream.Load<TFormat>(a.Weights, place, 0, c + (7 * warps));
        }
        next = Inputs<TFormat, TTiles>(a, IntrinsicMath.Min(c + warps, last));
        if (c < count)
            Multiply<TFormat, TTiles>(w0, x, ref sum0, ref sum1);
        x = Inputs<TFormat, TTiles>(a, IntrinsicMath.Min(c + (2 * warps), last));
        if (c + warps < count)
            Multiply<TFormat, TTiles>(w1, next, ref sum0, ref sum1);
        next = Inputs<TFormat, TTiles>(a, IntrinsicMath.Min(c + (3 * warps), last));
        if (c + (2 * warps) < count)
            Multiply<TFormat, TTiles>(w2, x, ref sum0, ref sum1);
        if (c + (3 * warps) < count)
            Multiply<TFormat, TTiles>(w3, next, ref sum0, ref sum1);
        for (c += 4 * warps; c < count; c += warps)
            Multiply<TFormat, TTiles>(TileStream.Load<TFormat>(a.Weights, place, 0, c), Inputs<TFormat, TTiles>(a, c), ref sum0, ref sum1);
    }

    // Columns beyond the tokens repeat the last one; their sums are not stored.
    private static TileRowsInputs Inputs<TFormat, TTiles>(TileRowsArgs a, int chunk)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        ArrayView<uint> x = a.X.Cast<uint>();
        int lane = Group.IdxX & 31, word = TileStream.InputWord<TFormat>(lane);
        long rowWords = a.Weights.K >> 1;
        TileRowsInputs inputs = default;
        inputs.Tile0 = TileStream.Inputs<TFormat, DeviceTileMemory>(x, (IntrinsicMath.Min(lane >> 2, a.Tokens - 1) * rowWords) + word, chunk);
        if (TTiles.Count == 2)
            inputs.Tile1 = TileStream.Inputs<TFormat, DeviceTileMemory>(x, (IntrinsicMath.Min((lane >> 2) + TileStream.Columns, a.Tokens - 1) * rowWords) + word, chunk);
        return inputs;
    }

    private static void Multiply<TFormat, TTiles>(TileChunk w, TileRowsInputs x, ref F4 sum0, ref F4 sum1)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        sum0 = TileStream.Multiply<TFormat>(w, x.Tile0, 1f, 1f, sum0);
        if (TTiles.Count == 2)
            sum1 = TileStream.Multiply<TFormat>(w, x.Tile1, 1f, 1f, sum1);
    }
}
