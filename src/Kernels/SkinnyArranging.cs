using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of <see cref="SkinnyArranging"/>.</summary>
internal struct SkinnyArrangingArgs
{
    public LinearArgs Product;
    public ArrangedInputs Inputs;
}

/// <summary>Where a lane reads: words, and which of them is its first. With two tiles of x a number is added to what is the same for all threads, one register instead of an address's two, which are short there; with one tile that is slower (docs/kernels/gemv.md).</summary>
internal struct SkinnyWords
{
    public ArrayView<uint> Words;
    public int First;
}

/// <summary>
/// <see cref="SkinnyGemm"/> by large matrices of four bits, whose blocks arrange x together while they multiply their first chunks by x as it lies (<see cref="ArrangeInputs"/>). The same sums in the same order.
/// </summary>
/// <remarks>
/// NVFP4 x is decoded once so, where else every warp of every block does. Matrices have whole tiles of rows: a lane's rows of W are then equally far apart, and one place is kept for all four.
/// The second loop asks for the lane's number anew: worked out from the thread's once, with zero points the compiler keeps it in local memory (docs/kernels/gemv.md).
/// </remarks>
internal static class SkinnyArranging
{
    public static void Run<TFormat, TInput, TOutput, TTiles>(SkinnyArrangingArgs a)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, IOutput
        where TTiles : struct, ITiles
    {
        int lane = Lane(), turn = Group.IdxX >> 5, warps = Group.DimX >> 5, chunks = a.Product.K / SkinnyGemm.ChunkCodes<TFormat>();
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        SkinnyAsidePlace aside = SkinnyAside.Locate<TFormat, TTiles>(a.Product, shared, lane);
        SkinnyAccumulators sums = default;
        Stream<TFormat, TInput, TTiles>(a, aside, shared, (turn, chunks, warps), ref sums);
        if (chunks * SkinnyGemm.ChunkCodes<TFormat>() < a.Product.K && chunks % warps == turn)
        {
            SkinnyPlace place = SkinnyLoads.Locate<TFormat, TInput>(a.Product, lane);
            place.Aside = aside;
            SkinnyGemm.MultiplyRest<TFormat, TInput, TTiles>(a.Product, place, (chunks, 0), lane, ref sums);
        }
        SkinnySums.Add<TFormat, TInput, TOutput, TTiles>(a.Product, sums);
    }

    // A method, not written out: else ILGPU orders the variables of the loops otherwise, and INT4 with two tiles of x has 8 bytes in local memory.
    private static int Lane() => Group.IdxX & 31;

    private static void Stream<TFormat, TInput, TTiles>(SkinnyArrangingArgs a, SkinnyAsidePlace aside, ArrayView<byte> shared, (int First, int Count, int Step) chunks, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        (int c, int count, int step) = chunks;
        SkinnyWords codes = Codes<TInput, TTiles>(a.Product, Lane());
        // A warp without a chunk loads the last one.
        SkinnyChunk first = Chunk(a.Product, codes, c, count), second = Chunk(a.Product, codes, c + step, count);
        SkinnyAside.Request<TFormat, TInput, TTiles>(a.Product, shared);
        GridDependency.Release();
        GridDependency.Wait();
        uint word = ArrangeInputs.Word(a.Inputs);
        // The last warps never have more chunks than others.
        int part = ArrangeInputs.Part(a.Inputs, step - 1 - c);
        if (part < a.Inputs.Parts)
            ArrangeInputs.Arrange<TFormat, TInput>(a.Product, a.Inputs, TTiles.Count, (part, Lane()));
        AsideCopies.Await();
        if (part < a.Inputs.Parts)
            ArrangeInputs.Announce(a.Inputs, Lane());
        uint goal = ArrangeInputs.Goal(a.Inputs, word);
        int lane = Lane();
        int row0 = IntrinsicMath.Min(lane >> 2, a.Product.M - 1), row1 = IntrinsicMath.Min((lane >> 2) + SkinnyGemm.Columns, a.Product.M - 1);
        SkinnyWords x = AsItLies<TInput, TTiles>(a.Product, row0, lane);
        // In words of BF16. What codes have is worked out where they are loaded: a choice here lets ILGPU order the loops' variables otherwise, and zero points with two tiles of x spill 28 bytes.
        int tile1 = (row1 - row0) * (a.Product.K >> 1);
        for (; c + step < count; c += 2 * step)
        {
            // Asked for in time for the end of the chunk.
            uint now = ArrangeInputs.Word(a.Inputs);
            Multiply<TFormat, TInput, TTiles>(a.Product, aside, first, (x, tile1), c, ref sums);
            first = Chunk(a.Product, codes, c + (2 * step), count);
            if (ArrangeInputs.IsThere(now, goal))
            {
                Arranged<TFormat, TTiles>(a, aside, codes, (second, first), (c + step, count, step), ref sums);
                return;
            }
            now = ArrangeInputs.Word(a.Inputs);
            Multiply<TFormat, TInput, TTiles>(a.Product, aside, second, (x, tile1), c + step, ref sums);
            second = Chunk(a.Product, codes, c + (3 * step), count);
            if (ArrangeInputs.IsThere(now, goal))
            {
                Arranged<TFormat, TTiles>(a, aside, codes, (first, second), (c + (2 * step), count, step), ref sums);
                return;
            }
        }
        if (c < count)
            Multiply<TFormat, TInput, TTiles>(a.Product, aside, first, (x, tile1), c, ref sums);
    }

    private static void Arranged<TFormat, TTiles>(SkinnyArrangingArgs a, SkinnyAsidePlace aside, SkinnyWords codes, (SkinnyChunk First, SkinnyChunk Second) loaded, (int First, int Count, int Step) chunks, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        (int c, int count, int step) = chunks;
        ArrangeInputs.See(a.Inputs);
        SkinnyChunk first = loaded.First, second = loaded.Second;
        SkinnyWords x = ArrangedWords<TTiles>(a.Inputs, (int)WarpOps.LaneId());
        int tile1 = ArrangeInputs.TileWords(a.Product.K);
        for (; c + step < count; c += 2 * step)
        {
            Multiply<TFormat, StreamedArrangedInputs, TTiles>(a.Product, aside, first, (x, tile1), c, ref sums);
            first = Chunk(a.Product, codes, c + (2 * step), count);
            Multiply<TFormat, StreamedArrangedInputs, TTiles>(a.Product, aside, second, (x, tile1), c + step, ref sums);
            second = Chunk(a.Product, codes, c + (3 * step), count);
        }
        if (c < count)
            Multiply<TFormat, StreamedArrangedInputs, TTiles>(a.Product, aside, first, (x, tile1), c, ref sums);
    }

    // Words of a row of codes of four bits.
    private static int RowWords(LinearArgs a) => a.K >> 3;

    private static SkinnyWords Codes<TInput, TTiles>(LinearArgs a, int lane)
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        SkinnyWords codes = default;
        if (TTiles.Count == 2)
        {
            codes.Words = From(a.Codes.Cast<uint>(), SkinnyGemm.FirstRow<TInput>(a) * RowWords(a));
            codes.First = ((lane >> 2) * RowWords(a)) + ((lane & 3) * SkinnyLoads.WordStep);
        }
        else
        {
            codes.Words = From(a.Codes.Cast<uint>(), ((SkinnyGemm.FirstRow<TInput>(a) + (lane >> 2)) * RowWords(a)) + ((lane & 3) * SkinnyLoads.WordStep));
        }
        return codes;
    }

    private static SkinnyWords AsItLies<TInput, TTiles>(LinearArgs a, int row, int lane)
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        SkinnyWords x = default;
        if (TInput.AreCodes)
        {
            // The number of a word says where its group's multiplier is.
            x.Words = a.X.Cast<uint>();
            x.First = (row * RowWords(a)) + ((lane & 3) * SkinnyLoads.WordStep);
        }
        else if (TTiles.Count == 2)
        {
            x.Words = a.X.Cast<uint>();
            x.First = (row * (a.K >> 1)) + ((lane & 3) * 4 * SkinnyLoads.WordStep);
        }
        else
        {
            x.Words = From(a.X.Cast<uint>(), ((long)row * (a.K >> 1)) + ((lane & 3) * 4 * SkinnyLoads.WordStep));
        }
        return x;
    }

    private static SkinnyWords ArrangedWords<TTiles>(ArrangedInputs inputs, int lane)
        where TTiles : struct, ITiles
    {
        SkinnyWords x = default;
        int first = lane * SkinnyLoads.WordStep;
        if (TTiles.Count == 2)
        {
            x.Words = inputs.Memory;
            x.First = first;
        }
        else
        {
            x.Words = From(inputs.Memory, first);
        }
        return x;
    }

    private static ArrayView<uint> From(ArrayView<uint> words, long start) => words.SubView(start, words.Length - start);

    // Beyond the last chunk it is the last one.
    private static SkinnyChunk Chunk(LinearArgs a, SkinnyWords codes, int chunk, int count)
    {
        int at = codes.First + (IntrinsicMath.Min(chunk, count - 1) * SkinnyGemm.ChunkWords), step = 8 * RowWords(a);
        SkinnyChunk loaded = default;
        loaded.Row0 = Mem.LoadStream(ref codes.Words[at]);
        loaded.Row1 = Mem.LoadStream(ref codes.Words[at + step]);
        loaded.Row2 = Mem.LoadStream(ref codes.Words[at + (2 * step)]);
        loaded.Row3 = Mem.LoadStream(ref codes.Words[at + (3 * step)]);
        return loaded;
    }

    private static void Multiply<TFormat, TInput, TTiles>(LinearArgs a, SkinnyAsidePlace aside, SkinnyChunk w, (SkinnyWords Tile0, int Tile1) x, int c, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        int first = x.Tile0.First + (c * (TInput.AreArranged ? ArrangeInputs.ChunkBytes / 4 : TInput.AreCodes ? SkinnyGemm.ChunkWords : SkinnyGemm.ChunkCodes<TFormat>() / 2));
        SkinnyInputTiles inputs = default;
        inputs.Tile0 = Inputs<TInput>(a, x.Tile0.Words, first);
        if (TTiles.Count == 2)
            inputs.Tile1 = Inputs<TInput>(a, x.Tile0.Words, first + (TInput.AreCodes ? x.Tile1 >> 2 : x.Tile1));
        SkinnyAside.Load<TFormat>(a, aside, c, ref w);
        SkinnyProducts.Multiply<TFormat, TInput, TTiles>(w, inputs, ref sums);
    }

    private static SkinnyInputs Inputs<TInput>(LinearArgs a, ArrayView<uint> x, int first)
        where TInput : struct, IStreamedInputs
    {
        SkinnyInputs inputs = default;
        inputs.X0 = Mem.LoadGlobal(ref x[first]);
        if (TInput.AreCodes)
        {
            // A word of eight codes is half a group of 16.
            inputs.Operand = Mem.LoadGlobalHalf(ref a.InputScales.Groups[first >> 1]);
            return inputs;
        }
        inputs.X1 = Mem.LoadGlobalAt(ref x[first], TInput.AreArranged ? ArrangeInputs.StepBytes : 16);
        inputs.X2 = Mem.LoadGlobalAt(ref x[first], TInput.AreArranged ? 2 * ArrangeInputs.StepBytes : 32);
        inputs.X3 = Mem.LoadGlobalAt(ref x[first], TInput.AreArranged ? 3 * ArrangeInputs.StepBytes : 48);
        return inputs;
    }
}
