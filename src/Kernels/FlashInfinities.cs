using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Infinite values and NaN in a tile of values that not all rows of a block see in full. A product with a weight of zero would hand them to rows that do not
/// see them: so they are added to those that do (a weight is at most 1 and only scales an infinity), and become zeros before the tile is multiplied.
/// </summary>
internal static class FlashInfinities
{
    private const uint High = 0x7F800000, Low = 0x7F80;

    /// <summary>Whether the tile has any; the answer is the same for the whole block. <paramref name="mark"/> differs from call to call.</summary>
    public static bool Exist<TScores, TOutputs>(ArrayView<ushort> values, ArrayView<int> found, int mark)
        where TScores : struct, IFlashSums<TScores>
        where TOutputs : struct, IFlashSums<TOutputs>
    {
        ArrayView<uint> words = values.Cast<uint>();
        bool any = false;
        for (int i = Group.IdxX * 4; i < Words<TScores, TOutputs>(); i += Group.DimX * 4)
        {
            // The 16 bytes behind a row are nobody's.
            if (IsPadding<TOutputs>(i))
                continue;
            U4 unit = Mem.LoadShared(ref words[i]);
            any = any || IsAny(unit);
        }
        if (any)
            found[0] = mark;
        Block.Barrier(); // all have looked
        return found[0] == mark;
    }

    /// <summary>Adds what the lane's rows see of them to its outputs.</summary>
    public static void Add<TScores, TOutputs>(ArrayView<ushort> values, ref TOutputs outputs, int upperLength, int lowerLength)
        where TScores : struct, IFlashSums<TScores>
        where TOutputs : struct, IFlashSums<TOutputs>
    {
        ArrayView<uint> words = values.Cast<uint>();
        for (int row = 0; row < TScores.Columns; row++)
            TOutputs.AddInfinities(ref outputs, words, (row * (FlashTiles.Pitch(TOutputs.Columns) >> 2)) + (Group.IdxX & 3), row < upperLength, row < lowerLength);
    }

    /// <summary>Makes zeros of them.</summary>
    public static void Remove<TScores, TOutputs>(ArrayView<ushort> values)
        where TScores : struct, IFlashSums<TScores>
        where TOutputs : struct, IFlashSums<TOutputs>
    {
        ArrayView<uint> words = values.Cast<uint>();
        for (int i = Group.IdxX; i < Words<TScores, TOutputs>(); i += Group.DimX)
            words[i] = Without(words[i]);
    }

    /// <summary>The lower number of a word if it is infinite or NaN, else zero.</summary>
    public static float OfLow(uint word) => (word & Low) == Low ? Bf16.Low(word) : 0;

    /// <summary>The upper one.</summary>
    public static float OfHigh(uint word) => (word & High) == High ? Bf16.High(word) : 0;

    /// <summary>Whether any of eight numbers is infinite or NaN.</summary>
    public static bool IsAny(U4 unit) => IsAny(unit.X) || IsAny(unit.Y) || IsAny(unit.Z) || IsAny(unit.W);

    /// <summary>The eight numbers with zeros in the place of such.</summary>
    public static U4 Without(U4 unit)
    {
        unit.X = Without(unit.X);
        unit.Y = Without(unit.Y);
        unit.Z = Without(unit.Z);
        unit.W = Without(unit.W);
        return unit;
    }

    private static uint Without(uint word) => ((word & High) == High ? 0 : word & 0xFFFF0000u) | ((word & Low) == Low ? 0 : word & 0xFFFFu);

    private static bool IsAny(uint word) => (word & High) == High || (word & Low) == Low;

    private static int Words<TScores, TOutputs>()
        where TScores : struct, IFlashSums<TScores>
        where TOutputs : struct, IFlashSums<TOutputs> => FlashTiles.TileBytes(TScores.Columns, TOutputs.Columns) >> 2;

    private static bool IsPadding<TOutputs>(int word)
        where TOutputs : struct, IFlashSums<TOutputs> => word % (FlashTiles.Pitch(TOutputs.Columns) >> 2) == TOutputs.Columns / 2;
}
