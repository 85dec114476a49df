using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The columns of three alike, where twice two would be too many: as <see cref="FlashBoth{TFirst, TSecond}"/>, whose parts must be alike (<see cref="FlashQueryThree{TPart}"/>).</summary>
internal struct FlashThree<TPart> : IFlashSums<FlashThree<TPart>>
    where TPart : struct, IFlashSums<TPart>
{
    public TPart First, Second, Third;

    public static int Columns => 3 * TPart.Columns;

    public static void AddKeys(ref FlashThree<TPart> scores, ArrayView<ushort> keys, int bytes, int headDim, U4 query)
    {
        int step = TPart.Columns * FlashTiles.Pitch(headDim);
        TPart.AddKeys(ref scores.First, keys, bytes, headDim, query);
        TPart.AddKeys(ref scores.Second, keys, bytes + step, headDim, query);
        TPart.AddKeys(ref scores.Third, keys, bytes + (2 * step), headDim, query);
    }

    public static void AddValues(ref FlashThree<TPart> outputs, ArrayView<ushort> values, int bytes, U4 weights)
    {
        TPart.AddValues(ref outputs.First, values, bytes, weights);
        TPart.AddValues(ref outputs.Second, values, bytes + (TPart.Columns * sizeof(ushort)), weights);
        TPart.AddValues(ref outputs.Third, values, bytes + (2 * TPart.Columns * sizeof(ushort)), weights);
    }

    public static void Weigh<TOutputs>(FlashThree<TPart> weights, ref TOutputs outputs, ref F4 mass, ArrayView<ushort> values, int bytes, int headDim)
        where TOutputs : struct, IFlashSums<TOutputs>
    {
        int step = TPart.Columns * FlashTiles.Pitch(headDim);
        TPart.Weigh(weights.First, ref outputs, ref mass, values, bytes, headDim);
        TPart.Weigh(weights.Second, ref outputs, ref mass, values, bytes + step, headDim);
        TPart.Weigh(weights.Third, ref outputs, ref mass, values, bytes + (2 * step), headDim);
    }

    public static void Mask(ref FlashThree<TPart> scores, int column, int upper, int lower)
    {
        TPart.Mask(ref scores.First, column, upper, lower);
        TPart.Mask(ref scores.Second, column + TPart.Columns, upper, lower);
        TPart.Mask(ref scores.Third, column + (2 * TPart.Columns), upper, lower);
    }

    public static FlashRows Largest(FlashThree<TPart> scores, FlashRows so) => TPart.Largest(scores.Third, TPart.Largest(scores.Second, TPart.Largest(scores.First, so)));

    public static void Exponentiate(ref FlashThree<TPart> scores, float scale, FlashRows shift)
    {
        TPart.Exponentiate(ref scores.First, scale, shift);
        TPart.Exponentiate(ref scores.Second, scale, shift);
        TPart.Exponentiate(ref scores.Third, scale, shift);
    }

    public static void Multiply(ref FlashThree<TPart> outputs, FlashRows factors)
    {
        TPart.Multiply(ref outputs.First, factors);
        TPart.Multiply(ref outputs.Second, factors);
        TPart.Multiply(ref outputs.Third, factors);
    }

    public static void AddInfinities(ref FlashThree<TPart> outputs, ArrayView<uint> values, int word, bool upper, bool lower)
    {
        TPart.AddInfinities(ref outputs.First, values, word, upper, lower);
        TPart.AddInfinities(ref outputs.Second, values, word + (TPart.Columns / 2), upper, lower);
        TPart.AddInfinities(ref outputs.Third, values, word + TPart.Columns, upper, lower);
    }

    public static void Store(FlashThree<TPart> outputs, ArrayView<uint> target, int word, long upper, long lower)
    {
        TPart.Store(outputs.First, target, word, upper, lower);
        TPart.Store(outputs.Second, target, word + (TPart.Columns / 2), upper, lower);
        TPart.Store(outputs.Third, target, word + TPart.Columns, upper, lower);
    }
}
