using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A lane's part of 16 rows of queries, all columns of the head, as operands of an mma; composed as <see cref="IFlashSums{TSelf}"/> is.</summary>
internal interface IFlashQueries<TSelf>
    where TSelf : struct, IFlashQueries<TSelf>
{
    /// <summary>Columns, a multiple of 16.</summary>
    static abstract int Columns { get; }

    /// <summary>Reads rows g and g + 8 from the lane's word of each on.</summary>
    static abstract TSelf Load(ArrayView<uint> source, long upper, long lower);

    /// <summary>Adds the products with the keys of a tile.</summary>
    static abstract void Score<TScores>(TSelf queries, ref TScores scores, ArrayView<ushort> keys, int bytes, int headDim)
        where TScores : struct, IFlashSums<TScores>;
}

/// <summary>Sixteen columns.</summary>
internal struct FlashQuery : IFlashQueries<FlashQuery>
{
    public U4 Operand;

    public static int Columns => 16;

    public static FlashQuery Load(ArrayView<uint> source, long upper, long lower)
    {
        FlashQuery query;
        query.Operand.X = Mem.LoadGlobal1(ref source[upper]);
        query.Operand.Y = Mem.LoadGlobal1(ref source[lower]);
        query.Operand.Z = Mem.LoadGlobal1(ref source[upper + 4]);
        query.Operand.W = Mem.LoadGlobal1(ref source[lower + 4]);
        return query;
    }

    public static void Score<TScores>(FlashQuery queries, ref TScores scores, ArrayView<ushort> keys, int bytes, int headDim)
        where TScores : struct, IFlashSums<TScores> => TScores.AddKeys(ref scores, keys, bytes, headDim, queries.Operand);
}

/// <summary>The columns of one and then those of another.</summary>
internal struct FlashQueryBoth<TFirst, TSecond> : IFlashQueries<FlashQueryBoth<TFirst, TSecond>>
    where TFirst : struct, IFlashQueries<TFirst>
    where TSecond : struct, IFlashQueries<TSecond>
{
    public TFirst First;
    public TSecond Second;

    public static int Columns => TFirst.Columns + TSecond.Columns;

    public static FlashQueryBoth<TFirst, TSecond> Load(ArrayView<uint> source, long upper, long lower)
    {
        FlashQueryBoth<TFirst, TSecond> queries;
        queries.First = TFirst.Load(source, upper, lower);
        queries.Second = TSecond.Load(source, upper + (TFirst.Columns / 2), lower + (TFirst.Columns / 2));
        return queries;
    }

    public static void Score<TScores>(FlashQueryBoth<TFirst, TSecond> queries, ref TScores scores, ArrayView<ushort> keys, int bytes, int headDim)
        where TScores : struct, IFlashSums<TScores>
    {
        TFirst.Score(queries.First, ref scores, keys, bytes, headDim);
        TSecond.Score(queries.Second, ref scores, keys, bytes + (TFirst.Columns * sizeof(ushort)), headDim);
    }
}

/// <summary>
/// The columns of three alike. Both of <see cref="FlashQueryBoth{TFirst, TSecond}"/> must be alike as well: with different ones ILGPU, in some orders of kernels, takes
/// the one's type for the other's.
/// </summary>
internal struct FlashQueryThree<TPart> : IFlashQueries<FlashQueryThree<TPart>>
    where TPart : struct, IFlashQueries<TPart>
{
    public TPart First, Second, Third;

    public static int Columns => 3 * TPart.Columns;

    public static FlashQueryThree<TPart> Load(ArrayView<uint> source, long upper, long lower)
    {
        FlashQueryThree<TPart> queries;
        queries.First = TPart.Load(source, upper, lower);
        queries.Second = TPart.Load(source, upper + (TPart.Columns / 2), lower + (TPart.Columns / 2));
        queries.Third = TPart.Load(source, upper + TPart.Columns, lower + TPart.Columns);
        return queries;
    }

    public static void Score<TScores>(FlashQueryThree<TPart> queries, ref TScores scores, ArrayView<ushort> keys, int bytes, int headDim)
        where TScores : struct, IFlashSums<TScores>
    {
        TPart.Score(queries.First, ref scores, keys, bytes, headDim);
        TPart.Score(queries.Second, ref scores, keys, bytes + (TPart.Columns * sizeof(ushort)), headDim);
        TPart.Score(queries.Third, ref scores, keys, bytes + (2 * TPart.Columns * sizeof(ushort)), headDim);
    }
}
