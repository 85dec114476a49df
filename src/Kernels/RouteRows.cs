using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of the launch between <see cref="TileRows"/> and the experts.</summary>
internal struct RouteRowsArgs
{
    /// <summary>The residual streams, the gains and the normed states. Rows of the residual stream are whole 16-byte words.</summary>
    public RmsNorm.Args Norm;

    /// <summary>[Rows, Experts] sums that <see cref="TileRows"/> left; zero afterwards.</summary>
    public ArrayView<long> Sums;

    /// <summary>[Rows, Experts] float32: the logits, for whoever looks at them.</summary>
    public ArrayView<float> Logits;

    /// <summary>[Rows, TopK].</summary>
    public ArrayView<int> Experts;

    /// <summary>[Rows, TopK] float32.</summary>
    public ArrayView<float> Weights;

    /// <summary>[Rows]: negative where there is no token, which gets no expert.</summary>
    public ArrayView<int> Positions;

    /// <summary>The chosen experts and whose they are, written.</summary>
    public ExpertListing List;

    public int ExpertCount;
    public int TopK;
    public int Normalize;
}

/// <summary>
/// The norm before the experts, a block a token, and beside them one block that chooses for all: a warp a token reads the sums and, for the norm's factor, the token's row; then the block
/// makes the list of who was chosen.
/// </summary>
internal static class RouteRows
{
    /// <summary>Numbers of a row that a lane has on their way while experts are chosen.</summary>
    private const int Ahead = 64;

    public static void Run(RouteRowsArgs a)
    {
        ArrayView<float> scratch = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        ExpertListScratch list = default;
        list.Ids = SharedMemory.Allocate<int>(TileRows.MostTokens * Router.MaxTopK);
        list.Masks = SharedMemory.Allocate<int>(RouterSums.MostExperts);
        list.Chosen = SharedMemory.Allocate<int>(RouterSums.MostExperts / 32);
        list.Words = 1;
        GridDependency.Release();
        if (Grid.IdxX == 0)
            ExpertList.Clear(list, a.ExpertCount);
        GridDependency.Wait();
        if (Grid.IdxX == 0)
        {
            Block.Barrier(); // there are no bits before any is set
            for (int row = Group.IdxX >> 5; row < a.Norm.Rows; row += Group.DimX >> 5)
                Route(a, row, list);
            Block.Barrier(); // all bits are set before they are counted
            ExpertList.Store(a.List, list, a.TopK, a.ExpertCount);
            return;
        }
        for (int row = Grid.IdxX - 1; row < a.Norm.Rows; row += Grid.DimX - 1)
            // The same for the whole block.
            if (a.Positions[row] >= 0)
                RmsNorm.Normalize(a.Norm, (long)row * a.Norm.Width, scratch);
    }

    // One warp.
    private static void Route(RouteRowsArgs a, int row, ExpertListScratch list)
    {
        int lane = Group.IdxX & 31;
        bool exists = a.Positions[row] >= 0;
        RouterArgs router = default;
        router.Sums = a.Sums.SubView((long)row * a.ExpertCount, a.ExpertCount);
        router.Logits = a.Logits.SubView((long)row * a.ExpertCount, a.ExpertCount);
        router.Normalize = a.Normalize;
        RouterChoice choice = RouterSums.Load(router);
        // All of a row of two thousand numbers is on its way meanwhile.
        RowWords first = Request(a, row, 0), second = Request(a, row, Ahead / 2);
        if (!exists)
        {
            if (lane < a.TopK)
                Put(a, row, list, -1, 0);
            return;
        }
        choice = RouterSums.Select(choice, a.TopK);
        float squares = AddSquares(second, AddSquares(first, 0));
        for (int part = Ahead; part * 32 < a.Norm.Width; part += Ahead / 2)
            squares = AddSquares(Request(a, row, part), squares);
        float factor = Fast.Rsqrt((WarpOps.Sum(squares) / a.Norm.Width) + a.Norm.Epsilon);
        float weight = RouterSums.Weight(router.Normalize, choice, a.TopK, factor);
        RouterSums.StoreLogits(router, choice, factor);
        if (lane < a.TopK)
            Put(a, row, list, choice.ChosenExpert, weight);
        RouterSums.Clear(router);
    }

    private static void Put(RouteRowsArgs a, int row, ExpertListScratch list, int expert, float weight)
    {
        int pair = (row * a.TopK) + (Group.IdxX & 31);
        a.Experts[pair] = expert;
        a.Weights[pair] = weight;
        ExpertList.Note(list, row, pair, expert, a.ExpertCount);
    }

    // 32 numbers a lane, from the warp's number 32 · part on; zeros past the end.
    private static RowWords Request(RouteRowsArgs a, int row, int part)
    {
        ArrayView<uint> x = a.Norm.X.Cast<uint>();
        long start = (long)row * a.Norm.Width;
        int i = (part * 32) + ((Group.IdxX & 31) * 4);
        RowWords words = default;
        words.P0 = Word(x, start, i, a.Norm.Width);
        words.P1 = Word(x, start, i + 128, a.Norm.Width);
        words.P2 = Word(x, start, i + 256, a.Norm.Width);
        words.P3 = Word(x, start, i + 384, a.Norm.Width);
        words.P4 = Word(x, start, i + 512, a.Norm.Width);
        words.P5 = Word(x, start, i + 640, a.Norm.Width);
        words.P6 = Word(x, start, i + 768, a.Norm.Width);
        words.P7 = Word(x, start, i + 896, a.Norm.Width);
        return words;
    }

    private static U4 Word(ArrayView<uint> x, long start, int i, int width) => Mem.LoadL2If(ref x[start + IntrinsicMath.Min(i, width - 4)], i < width ? 1u : 0u);

    private static float AddSquares(RowWords w, float sum) =>
        AddSquares(w.P7, AddSquares(w.P6, AddSquares(w.P5, AddSquares(w.P4, AddSquares(w.P3, AddSquares(w.P2, AddSquares(w.P1, AddSquares(w.P0, sum))))))));

    private static float AddSquares(U4 word, float sum)
    {
        float x = Interop.IntAsFloat(word.X), y = Interop.IntAsFloat(word.Y), z = Interop.IntAsFloat(word.Z), w = Interop.IntAsFloat(word.W);
        return Fast.Fma(w, w, Fast.Fma(z, z, Fast.Fma(y, y, Fast.Fma(x, x, sum))));
    }
}

/// <summary>Eight words of a lane's part of a row.</summary>
internal struct RowWords
{
    public U4 P0, P1, P2, P3, P4, P5, P6, P7;
}
