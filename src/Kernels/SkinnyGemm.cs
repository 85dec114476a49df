using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>One lane's inputs of a chunk, of each tile of x.</summary>
internal struct SkinnyInputTiles
{
    public SkinnyInputs Tile0, Tile1;
}

/// <summary>
/// Products with at most 16 rows of x at the speed of the memory: y[m, n] = Σ_k x[m, k] · W[n, k] through tensor cores, the
/// weights as the 16-row operand and the rows of x as its 8 columns.
/// </summary>
/// <remarks>
/// A block has 32 rows of W. Its warps take turns along K, 64 bytes of each row at a time (a chunk), and add up through shared
/// memory in warp order. Lane (g, t) loads a 16-byte word of the rows g, g + 8, g + 16 and g + 24 straight into registers; a dot product does not care
/// how k is permuted as long as both operands agree, so a lane feeds its own consecutive codes to consecutive mma's and needs no
/// shuffles. Two or three chunks are in registers, each refilled right after it is multiplied, without a branch or a copied
/// register: either would make the warp wait for a load that it does not need yet. x comes through L1, which the weights pass by. In a graph
/// the first chunks are requested while the launch before this one still runs: weights are not its output. A column of an mma does
/// not see the other columns and the number of warps depends on N, K, formats and the device, so a row of x has the same bits for every M of 1..16.
/// </remarks>
internal static class SkinnyGemm
{
    public const int Rows = 32;
    public const int MostWarps = 16;

    /// <summary>Most rows of x.</summary>
    public const int MostInputs = 2 * Columns;

    /// <summary>Most columns of codes that a warp adds as integers: of −8 · −8, times 2 to the power of <see cref="StreamedInt4Bytes.ProductShift"/>, 32 bits hold no more.</summary>
    public const int MostIntegerColumns = (1 << (31 - 6 - StreamedInt4Bytes.ProductShift)) - 1;

    /// <summary>Columns of one tile of x.</summary>
    public const int Columns = 8;

    /// <summary>Bytes of a row that a warp multiplies at once.</summary>
    public const int ChunkBytes = 64;

    /// <summary>The same in 32-bit words.</summary>
    public const int ChunkWords = ChunkBytes / 4;

    /// <summary>Shared memory of a block's sums, one a warp, row and column of so many tiles; behind it lies what <see cref="SkinnyAside"/> brings.</summary>
    public static int SharedBytes(int warps, int tiles) => warps * tiles * SkinnySums.TileSums * sizeof(float);

    /// <summary>Rows of x in a tile's columns: where halves of a chunk are scaled apart, each row has a column a half.</summary>
    public static int TileRows(bool halves) => halves ? Columns / 2 : Columns;

    /// <summary>Tiles of x of a block, 1 or 2.</summary>
    public static int Tiles(int m, bool halves) => m > TileRows(halves) ? 2 : 1;

    /// <summary>Blocks that have the same rows of W and each other rows of x: neighbours, so that one finds in L2 what the other has read.</summary>
    public static int RowParts(int m, bool halves) => 1 << RowPartsShift(m, halves);

    // Not a division by their number: it was waited for before the first load, behind the last barrier and before the store.
    private static int RowPartsShift(int m, bool halves) => m > 2 * TileRows(halves) ? 1 : 0;

    /// <summary>The block's first row of W.</summary>
    public static long FirstRow<TInput>(LinearArgs a)
        where TInput : struct, IStreamedInputs => (long)(TInput.ScaleColumns == 32 ? Grid.IdxX >> RowPartsShift(a.M, true) : Grid.IdxX) * Rows;

    /// <summary>The block's first row of x.</summary>
    public static int FirstInput<TInput>(LinearArgs a)
        where TInput : struct, IStreamedInputs => TInput.ScaleColumns == 32 ? (Grid.IdxX & RowPartsShift(a.M, true)) * 2 * TileRows(true) : 0;

    public static void Run<TFormat, TInput, TOutput, TTiles>(LinearArgs a)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, IOutput
        where TTiles : struct, ITiles
    {
        int lane = Group.IdxX & 31, turn = Group.IdxX >> 5, warps = Group.DimX >> 5;
        int chunks = a.K / ChunkCodes<TFormat>();
        SkinnyPlace place = SkinnyLoads.Locate<TFormat, TInput>(a, lane);
        place.Shared = SharedMemory.GetDynamic<byte>();
        if (SkinnyAside.Serves<TFormat, TInput>())
            place.Aside = SkinnyAside.Locate<TFormat, TTiles>(a, place.Shared, lane);
        SkinnyAccumulators sums = default;
        place.Stash = SkinnyStash.Locate<TFormat, TTiles>(place.Shared);
        if (turn >= chunks)
        {
            // With multipliers to wait for this is the block's only warp (SkinnyWarps): all warps of a block meet at one instruction.
            if (SkinnyAside.Serves<TFormat, TInput>())
                SkinnyAside.Request<TFormat, TInput, TTiles>(a, place.Shared);
            GridDependency.Release();
            GridDependency.Wait();
            if (SkinnyAside.Serves<TFormat, TInput>())
                AsideCopies.Await();
        }
        else if (TwoBuffers<TFormat, TInput, TTiles>())
        {
            StreamTwo<TFormat, TInput, TTiles>(a, place, Turns<TFormat>(turn, chunks, warps), ref sums);
        }
        else
        {
            StreamThree<TFormat, TInput, TTiles>(a, place, Turns<TFormat>(turn, chunks, warps), ref sums);
        }
        SkinnyStash.Take<TFormat, TTiles>(place.Stash, ref sums);
        // What is left of K is the turn of the warp after the last full chunk.
        if (chunks * ChunkCodes<TFormat>() < a.K && chunks % warps == turn)
        {
            MultiplyRest<TFormat, TInput, TTiles>(a, place, (chunks, 0), lane, ref sums);
            if (TFormat.Terms > 1)
                MultiplyRest<TFormat, TInput, TTiles>(a, place, (chunks, 1), lane, ref sums);
        }
        SkinnySums.Add<TFormat, TInput, TOutput, TTiles>(a, sums);
    }

    /// <summary>Multiplies what is left of K behind whole chunks.</summary>
    public static void MultiplyRest<TFormat, TInput, TTiles>(LinearArgs a, SkinnyPlace place, (int Chunk, int Term) at, int lane, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        SkinnyInputTiles inputs = default;
        SkinnyChunk rest = SkinnyLoads.Rest<TFormat, TInput, TTiles>(a, place, at, lane, ref inputs);
        SkinnyProducts.Multiply<TFormat, TInput, TTiles>(rest, inputs, ref sums);
    }

    // A warp's chunks. With two terms: twice its own, counted from 0.
    private static (int First, int Count, int Step) Turns<TFormat>(int turn, int chunks, int warps)
        where TFormat : struct, IStreamedFormat => TFormat.Terms == 1 ? (turn, chunks, warps) : (0, 2 * ((chunks - turn + warps - 1) / warps), 1);

    // Where a second tile of x needs many registers, a third chunk would cost more than it hides; NVFP4 by NVFP4 has x's next chunk beside them (docs/kernels/gemv.md).
    private static bool TwoBuffers<TFormat, TInput, TTiles>()
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles => (TTiles.Count == 2 && TFormat.CodesPerWordShift > 1 && !TInput.AreIntegers) || (TFormat.HasGroupScales && TInput.AreCodes);

    // Chunks in registers are refilled as soon as they are multiplied: no register is copied, so nothing waits for a load but the
    // multiplication that needs it. Past the end the last chunk is read again.
    private static void StreamThree<TFormat, TInput, TTiles>(LinearArgs a, SkinnyPlace place, (int First, int Count, int Step) chunks, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        (int c, int count, int step) = chunks;
        int last = count - 1;
        SkinnyChunk first = SkinnyLoads.Chunk<TFormat, TInput>(a, place, c);
        SkinnyChunk second = SkinnyLoads.Chunk<TFormat, TInput>(a, place, IntrinsicMath.Min(c + step, last));
        SkinnyChunk third = SkinnyLoads.Chunk<TFormat, TInput>(a, place, IntrinsicMath.Min(c + (2 * step), last));
        if (SkinnyAside.Serves<TFormat, TInput>())
            SkinnyAside.Request<TFormat, TInput, TTiles>(a, place.Shared);
        SkinnyLoads.Prefetch<TFormat, TInput>(a, loadedChunks: 3);
        GridDependency.Release();
        GridDependency.Wait();
        if (SkinnyAside.Serves<TFormat, TInput>())
            AsideCopies.Await();
        SkinnyInputTiles x0 = Inputs<TFormat, TInput, TTiles>(a, place, c), x1, x2;
        for (; c + (2 * step) < count; c += 3 * step)
        {
            x1 = Inputs<TFormat, TInput, TTiles>(a, place, c + step);
            MultiplyLoaded<TFormat, TInput, TTiles>(a, place, first, x0, c, ref sums);
            first = SkinnyLoads.Chunk<TFormat, TInput>(a, place, IntrinsicMath.Min(c + (3 * step), last));
            x2 = Inputs<TFormat, TInput, TTiles>(a, place, c + (2 * step));
            MultiplyLoaded<TFormat, TInput, TTiles>(a, place, second, x1, c + step, ref sums);
            second = SkinnyLoads.Chunk<TFormat, TInput>(a, place, IntrinsicMath.Min(c + (4 * step), last));
            x0 = Inputs<TFormat, TInput, TTiles>(a, place, IntrinsicMath.Min(c + (3 * step), last));
            MultiplyLoaded<TFormat, TInput, TTiles>(a, place, third, x2, c + (2 * step), ref sums);
            third = SkinnyLoads.Chunk<TFormat, TInput>(a, place, IntrinsicMath.Min(c + (5 * step), last));
        }
        if (c >= count)
            return;
        // Of BF16 a chunk is short: where K is small a warp has two, and waits for x once only. Formats of fewer bits are as fast or slower with it.
        x1 = default;
        if (TFormat.CodesPerWordShift == 1)
            x1 = Inputs<TFormat, TInput, TTiles>(a, place, IntrinsicMath.Min(c + step, last));
        MultiplyLoaded<TFormat, TInput, TTiles>(a, place, first, x0, c, ref sums);
        if (c + step >= count)
            return;
        if (TFormat.CodesPerWordShift != 1)
            x1 = Inputs<TFormat, TInput, TTiles>(a, place, c + step);
        MultiplyLoaded<TFormat, TInput, TTiles>(a, place, second, x1, c + step, ref sums);
    }

    // Of both tiles of x.
    private static SkinnyInputTiles Inputs<TFormat, TInput, TTiles>(LinearArgs a, SkinnyPlace place, int c)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        SkinnyInputTiles inputs = default;
        inputs.Tile0 = SkinnyLoads.Inputs<TFormat, TInput>(a, place.Input0, c);
        if (TTiles.Count == 2)
            inputs.Tile1 = SkinnyLoads.Inputs<TFormat, TInput>(a, place.Input1, c);
        return inputs;
    }

    private static void StreamTwo<TFormat, TInput, TTiles>(LinearArgs a, SkinnyPlace place, (int First, int Count, int Step) chunks, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        (int c, int count, int step) = chunks;
        int last = count - 1;
        SkinnyChunk first = SkinnyLoads.Chunk<TFormat, TInput>(a, place, c);
        SkinnyChunk second = SkinnyLoads.Chunk<TFormat, TInput>(a, place, IntrinsicMath.Min(c + step, last));
        if (SkinnyAside.Serves<TFormat, TInput>())
            SkinnyAside.Request<TFormat, TInput, TTiles>(a, place.Shared);
        SkinnyLoads.Prefetch<TFormat, TInput>(a, loadedChunks: 2);
        GridDependency.Release();
        GridDependency.Wait();
        if (SkinnyAside.Serves<TFormat, TInput>())
            AsideCopies.Await();
        SkinnyInputTiles x = default;
        if (IsAhead<TFormat, TInput>())
            x = Inputs<TFormat, TInput, TTiles>(a, place, c);
        for (; c + step < count; c += 2 * step)
        {
            x = MultiplyTurn<TFormat, TInput, TTiles>(a, place, first, x, (c, c + step), ref sums);
            first = SkinnyLoads.Chunk<TFormat, TInput>(a, place, IntrinsicMath.Min(c + (2 * step), last));
            x = MultiplyTurn<TFormat, TInput, TTiles>(a, place, second, x, (c + step, IntrinsicMath.Min(c + (2 * step), last)), ref sums);
            second = SkinnyLoads.Chunk<TFormat, TInput>(a, place, IntrinsicMath.Min(c + (3 * step), last));
        }
        if (c >= count)
            return;
        if (IsAhead<TFormat, TInput>())
            MultiplyLoaded<TFormat, TInput, TTiles>(a, place, first, x, c, ref sums);
        else
            Multiply<TFormat, TInput, TTiles>(a, place, first, c, ref sums);
    }

    // Codes of four bits need so few registers that they, too, are a chunk ahead.
    private static bool IsAhead<TFormat, TInput>()
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs => TInput.AreCodes && TFormat.CodesPerWordShift > 2;

    // Multiplies a chunk; gives the inputs of the next one where they are ahead.
    private static SkinnyInputTiles MultiplyTurn<TFormat, TInput, TTiles>(LinearArgs a, SkinnyPlace place, SkinnyChunk w, SkinnyInputTiles x, (int This, int Next) chunk, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        if (!IsAhead<TFormat, TInput>())
        {
            Multiply<TFormat, TInput, TTiles>(a, place, w, chunk.This, ref sums);
            return x;
        }
        SkinnyInputTiles next = Inputs<TFormat, TInput, TTiles>(a, place, chunk.Next);
        MultiplyLoaded<TFormat, TInput, TTiles>(a, place, w, x, chunk.This, ref sums);
        return next;
    }

    /// <summary>Codes of a row that a warp multiplies at once.</summary>
    public static int ChunkCodes<TFormat>()
        where TFormat : struct, IStreamedFormat => ChunkWords << TFormat.CodesPerWordShift;

    private static void Multiply<TFormat, TInput, TTiles>(LinearArgs a, SkinnyPlace place, SkinnyChunk chunk, int c, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        SkinnyInputTiles inputs = Inputs<TFormat, TInput, TTiles>(a, place, c);
        MultiplyLoaded<TFormat, TInput, TTiles>(a, place, chunk, inputs, c, ref sums);
    }

    private static void MultiplyLoaded<TFormat, TInput, TTiles>(LinearArgs a, SkinnyPlace place, SkinnyChunk w, SkinnyInputTiles x, int c, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        if (SkinnyAside.Serves<TFormat, TInput>())
            SkinnyAside.Load<TFormat>(a, place.Aside, c, ref w);
        SkinnyProducts.Multiply<TFormat, TInput, TTiles>(w, x, place.Stash, ref sums);
    }
}
