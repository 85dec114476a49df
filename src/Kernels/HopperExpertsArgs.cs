using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Where the multipliers of a stack of matrices lie, as numbers: <see cref="Formats.ScaleTable"/>.</summary>
internal struct HopperExpertScales
{
    /// <summary>Address of float32 [Experts, ⌈N / 2^RowShift⌉, Columns].</summary>
    public long Blocks;

    public int PerExpert, Columns, RowShift, ColumnShift;

    /// <summary>Address of the multiplier of a row and a column of one matrix.</summary>
    public readonly long At(int expert, int n, int k) => Blocks + ((((long)expert * PerExpert) + ((n >> RowShift) * Columns) + (k >> ColumnShift)) * sizeof(float));
}

/// <summary>Arguments of <see cref="HopperExperts"/>. Plain bytes, as <see cref="HopperArgs"/>.</summary>
internal struct HopperExpertsArgs
{
    /// <summary>Distance of each map from the start of the arguments, for the copy instructions.</summary>
    public const int GateUpMap = 0, DownMap = 128;

    /// <summary>Bits behind the point of a reciprocal.</summary>
    public const int ReciprocalBits = 20;

    /// <summary>[Experts · 2 · Width, 2048] E4M3, tiles of 128 columns × 16 rows: of each expert gate, then up.</summary>
    public TensorMap GateUp;

    /// <summary>[Experts · 2048, Width] E4M3, tiles of the same size.</summary>
    public TensorMap Down;

    public HopperExpertScales GateUpScales, DownScales;

    /// <summary>Address of [2048] BF16: the normed state.</summary>
    public long X;

    /// <summary>Address of the router, [Experts, 2048] BF16.</summary>
    public long Router;

    /// <summary>Address of <see cref="HopperExpertState.Words"/> words that are zero before the first launch and belong to launches of one stream.</summary>
    public long State;

    /// <summary>Address of [2048] float32, added to.</summary>
    public long Residual;

    /// <summary>Addresses of the routing, written: [TopK] int32, [TopK] float32, [Experts] float32.</summary>
    public long ChosenExperts, PairWeights, Logits;

    public int ExpertCount;
    public int TopK;

    /// <summary>Rows of gate, of up, and columns of down: a multiple of 128.</summary>
    public int Width;

    /// <summary>TopK · Width / 2048: tiles of a block and items of a warp, 1 to 3.</summary>
    public int Turns;

    /// <summary>1 / (Width / 16) and 1 / (Width / 128), rounded up: what numbers below 512 give with them, rounded down, is exact.</summary>
    public int TileReciprocal, ItemReciprocal;

    /// <summary>Whether the chosen probabilities are divided by their sum.</summary>
    public int Normalize;

    /// <summary>How often a block asks for what others are to post before it computes that itself.</summary>
    public int Patience;
}

/// <summary>
/// What the blocks of <see cref="HopperExperts"/> exchange: a count of blocks, and two sets of words of which launches use one in turn and clear the other. A word says itself whether it is there: it is not zero.
/// </summary>
internal static class HopperExpertState
{
    /// <summary>Copies of the logits, a power of two: of one line of the cache all blocks would wait for each other.</summary>
    public const int Copies = 16;

    /// <summary>Most experts: blocks, of which each has one's logit.</summary>
    public const int MostExperts = 128;

    private const int CountWords = 4, LogitWords = Copies * MostExperts;

    // Activations of the most tiles, two a word: the words lie the same for layers of any width.
    private const int ActivationWords = HopperExperts.MostTurns * HopperExperts.Hidden / 2, SetWords = LogitWords + ActivationWords;

    /// <summary>Length of the whole.</summary>
    public const int Words = CountWords + (2 * SetWords);

    /// <summary>Address of a launch's logits, [Copies, 128] float32 with the lowest bit set.</summary>
    public static long Logits(HopperExpertsArgs a, int set) => a.State + ((CountWords + (set * SetWords)) * sizeof(uint));

    /// <summary>Address of its activations, [TopK, Width] BF16 · 2⁶⁰ in the order in which <see cref="Formats.StreamedFp8"/> decodes weights, inverted: a pair of NaNs of all ones, which rounding never makes, would be zero.</summary>
    public static long Activated(HopperExpertsArgs a, int set) => Logits(a, set) + (LogitWords * sizeof(uint));

    /// <summary>Which set a launch has that read this count before it added its block: launches before have added all of theirs, of its own at most all others have.</summary>
    public static int Set(uint count) => (int)(count / HopperExperts.Blocks) & 1;

    /// <summary>Counts the block and makes the other set's words zero, by all blocks. Launches that used it have ended, and the one that will has not begun to post.</summary>
    public static void Leave(HopperExpertsArgs a, int other)
    {
        if (Group.IdxX == 0)
            Mem.AddRelaxedTo(a.State, 1);
        long start = Logits(a, other);
        for (int i = (Grid.IdxX * HopperExperts.Threads) + Group.IdxX; i < SetWords; i += HopperExperts.Blocks * HopperExperts.Threads)
            Mem.StoreRelaxedTo(start + (i * sizeof(uint)), 0);
    }
}
