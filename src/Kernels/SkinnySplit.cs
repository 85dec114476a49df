using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of <see cref="SkinnySplit"/>.</summary>
internal struct SkinnySplitArgs
{
    public LinearArgs Product;

    /// <summary>[parts, blocks of rows, columns of a block, 32] float32: sums of parts of K, where there are several.</summary>
    public ArrayView<uint> Partials;

    /// <summary>[blocks of rows] parts that are done, zero before and afterwards.</summary>
    public ArrayView<int> Arrived;
}

/// <summary>Where a warp of <see cref="SkinnySplit"/> is, and what is its share.</summary>
internal struct SkinnySplitPlace
{
    public SkinnyPlace Weights;
    public SkinnySplitInputs Inputs;

    /// <summary>The group's number in the block and the tile's in the group.</summary>
    public int Group, Tile;

    /// <summary>The group's first chunk, and chunks from one to the next.</summary>
    public int Turn, Step;
}

/// <summary>
/// <see cref="SkinnyGemm"/> for 9 to 16 rows of x and large matrices of four bits: four tiles of W share what is loaded of x, and K is spread over blocks.
/// </summary>
/// <remarks>
/// 16 rows of BF16 are 32 bytes a column, 32 rows of W in four bits are 16: a warp that loads x for its own tile reads twice as much of x as of W, all of it from L2. Here four warps, a group, have the same columns of four tiles. They load a chunk of x
/// together, whole lines, arrange it once and read it from shared memory, two stages and a meeting point a group; x has a quarter of the bytes and none of the work per tile. A block is up to four groups, which take chunks in turn; fewer blocks of rows
/// than multiprocessors leave are made up for by parts of K, whose sums the last block adds.
/// The groups of all parts take the turns that warps of a tile have in <see cref="SkinnyGemm"/>, and sums are added in the same order: a row of x has the same bits there and here.
/// </remarks>
internal static class SkinnySplit
{
    /// <summary>Tiles of 32 rows of W, a warp each, that share x.</summary>
    public const int Tiles = 4;

    /// <summary>Rows of W of a block.</summary>
    public const int Rows = Tiles * SkinnyGemm.Rows;

    /// <summary>Most groups of a block.</summary>
    public const int MostGroups = 4;

    /// <summary>Shared memory of a group in words: its sums, before that two stages of x.</summary>
    public static int GroupWords(int tiles) => Tiles * tiles * SkinnySums.TileSums;

    public static void Run<TFormat, TOutput, TTiles>(SkinnySplitArgs a)
        where TFormat : struct, IStreamedFormat
        where TOutput : struct, IOutput
        where TTiles : struct, ITiles
    {
        ArrayView<int> arrived = SharedMemory.Allocate<int>(1);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int lane = Group.IdxX & 31, chunks = a.Product.K / SkinnyGemm.ChunkCodes<TFormat>();
        SkinnySplitPlace place = Locate<TFormat, TTiles>(a.Product, shared, lane);
        SkinnyAccumulators sums = default;
        if (place.Turn < chunks)
        {
            Stream<TFormat, TTiles>(a.Product, shared, place, chunks, ref sums);
        }
        else
        {
            SkinnySplitAside.Request<TFormat, TTiles>(a.Product, shared);
            GridDependency.Release();
            GridDependency.Wait();
            SkinnyAside.Await();
        }
        // What is left of K is the turn of the group after the last full chunk.
        if (chunks * SkinnyGemm.ChunkCodes<TFormat>() < a.Product.K && chunks % place.Step == place.Turn)
            MultiplyRest<TFormat, TTiles>(a.Product, place, chunks, lane, ref sums);
        SkinnySplitSums.Add<TFormat, TOutput, TTiles>(a, shared.Cast<float>(), arrived, place, sums);
    }

    private static SkinnySplitPlace Locate<TFormat, TTiles>(LinearArgs a, ArrayView<byte> shared, int lane)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int warp = Group.IdxX >> 5, groups = Group.DimX / Warpgroup.Threads;
        SkinnySplitPlace place = default;
        place.Tile = warp & (Tiles - 1);
        place.Group = warp / Tiles;
        place.Turn = (Grid.IdxY * groups) + place.Group;
        place.Step = groups * Grid.DimY;
        place.Weights = SkinnyLoads.LocateWeights<TFormat>(a, lane, FirstRow() + (place.Tile * SkinnyGemm.Rows));
        place.Weights.Aside = SkinnySplitAside.Locate<TFormat, TTiles>(a, shared, (place.Tile * SkinnyGemm.Rows) + (lane >> 2), lane);
        place.Inputs = SkinnySplitInputs.Locate<TTiles>(a, shared.Cast<uint>(), place.Group, lane);
        return place;
    }

    /// <summary>The block's first row of W.</summary>
    public static long FirstRow() => (long)Grid.IdxX * Rows;

    // Chunks of W in registers are refilled as soon as they are multiplied, as in SkinnyGemm; x has its next chunk in shared memory and the one after that in registers.
    private static void Stream<TFormat, TTiles>(LinearArgs a, ArrayView<byte> shared, SkinnySplitPlace place, int chunks, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int c = place.Turn, step = place.Step, last = chunks - 1, local = place.Group, localStep = Group.DimX / Warpgroup.Threads;
        SkinnyChunk first = Chunk<TFormat>(a, place, c);
        SkinnyChunk second = Chunk<TFormat>(a, place, IntrinsicMath.Min(c + step, last));
        SkinnyChunk third = Chunk<TFormat>(a, place, IntrinsicMath.Min(c + (2 * step), last));
        SkinnySplitAside.Request<TFormat, TTiles>(a, shared);
        GridDependency.Release();
        GridDependency.Wait();
        SkinnyInputPair x = place.Inputs.Load<TTiles>(c);
        place.Inputs.Store<TFormat, TTiles>(x, 0);
        x = place.Inputs.Load<TTiles>(IntrinsicMath.Min(c + step, last));
        SkinnyAside.Await();
        int stage = 0;
        for (; c + (2 * step) < chunks; c += 3 * step)
        {
            x = Turn<TFormat, TTiles>(a, place, first, x, (c, last), stage, local, ref sums);
            first = Chunk<TFormat>(a, place, IntrinsicMath.Min(c + (3 * step), last));
            x = Turn<TFormat, TTiles>(a, place, second, x, (c + step, last), stage ^ 1, local + localStep, ref sums);
            second = Chunk<TFormat>(a, place, IntrinsicMath.Min(c + (4 * step), last));
            x = Turn<TFormat, TTiles>(a, place, third, x, (c + (2 * step), last), stage, local + (2 * localStep), ref sums);
            third = Chunk<TFormat>(a, place, IntrinsicMath.Min(c + (5 * step), last));
            local += 3 * localStep;
            stage ^= 1;
        }
        if (c < chunks)
            x = Turn<TFormat, TTiles>(a, place, first, x, (c, last), stage, local, ref sums);
        if (c + step < chunks)
            Turn<TFormat, TTiles>(a, place, second, x, (c + step, last), stage ^ 1, local + localStep, ref sums);
    }

    // Multiplies the chunk whose x is in a stage, and puts the next one's into the other.
    private static SkinnyInputPair Turn<TFormat, TTiles>(LinearArgs a, SkinnySplitPlace place, SkinnyChunk w, SkinnyInputPair x, (int C, int Last) at, int stage, int local, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        place.Inputs.Store<TFormat, TTiles>(x, stage ^ 1);
        x = place.Inputs.Load<TTiles>(IntrinsicMath.Min(at.C + (2 * place.Step), at.Last));
        Multiply<TFormat, TTiles>(a, place, w, stage, at.C, local, ref sums);
        // The group has stored the next chunk's x and read this one's.
        Warpgroup.Meet((uint)place.Group + 1);
        return x;
    }

    private static SkinnyChunk Chunk<TFormat>(LinearArgs a, SkinnySplitPlace place, int chunk)
        where TFormat : struct, IStreamedFormat => SkinnyLoads.Chunk<TFormat, StreamedArrangedInputs>(a, place.Weights, chunk);

    private static void MultiplyRest<TFormat, TTiles>(LinearArgs a, SkinnySplitPlace place, int chunks, int lane, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        SkinnyChunk rest = default;
        // The first column of a lane's word.
        if ((chunks * SkinnyGemm.ChunkCodes<TFormat>()) + ((lane & 3) << (2 + TFormat.CodesPerWordShift)) < a.K)
            rest = Chunk<TFormat>(a, place, chunks);
        SkinnyInputPair x = place.Inputs.LoadRest<TTiles>(chunks, a.K);
        place.Inputs.Store<TFormat, TTiles>(x, 0);
        Warpgroup.Meet((uint)place.Group + 1);
        Multiply<TFormat, TTiles>(a, place, rest, 0, chunks, (chunks / place.Step * (Group.DimX / Warpgroup.Threads)) + place.Group, ref sums);
        Warpgroup.Meet((uint)place.Group + 1);
    }

    private static void Multiply<TFormat, TTiles>(LinearArgs a, SkinnySplitPlace place, SkinnyChunk w, int stage, int chunk, int local, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        SkinnySplitAside.Load<TFormat>(a, place.Weights.Aside, chunk, local, ref w);
        SkinnyProducts.Multiply<TFormat, StreamedArrangedInputs, TTiles>(w, place.Inputs.Read<TTiles>(stage), ref sums);
    }
}
