using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Values by weights in <see cref="DecodeAttention"/>: a warp has 16 columns of all tiles of a chunk.</summary>
internal static class AttentionValues
{
    /// <summary>Adds a chunk of some tiles.</summary>
    public static void Add<THead, TTiles>(AttentionMemory memory, AttentionChunk chunk, int tiles, ref AttentionSums sums)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int warp = Group.IdxX >> 5, warps = Group.DimX >> 5, slices = DecodeAttention.Slices<THead>();
        ArrayView<float> masses = memory.MassesOf(chunk.Turn);
        F2 largest = LargestOfFour(masses, 0, sums.Largest0, sums.Largest1);
        if (warps > 4)
            largest = LargestOfFour(masses, 4, largest.X, largest.Y);
        float decay0 = Fast.Ex2(sums.Largest0 - largest.X), decay1 = Fast.Ex2(sums.Largest1 - largest.Y);
        sums.Largest0 = largest.X;
        sums.Largest1 = largest.Y;
        // Blocks of fewer warps have two slices a warp.
        for (int slice = warp; slice < slices; slice += warps)
        {
            F4 sum = Scaled(slice == warp ? sums.First : sums.Second, decay0, decay1);
            sum = AddFour<THead, TTiles>(memory, chunk, (0, tiles), slice, sums, sum);
            if (tiles > 4)
                sum = AddFour<THead, TTiles>(memory, chunk, (4, tiles), slice, sums, sum);
            if (slice == warp)
                sums.First = sum;
            else
                sums.Second = sum;
        }
    }

    private static F2 LargestOfFour(ArrayView<float> masses, int first, float largest0, float largest1)
    {
        F2 m0 = AttentionTiles.LargestOf(masses, first), m1 = AttentionTiles.LargestOf(masses, first + 1), m2 = AttentionTiles.LargestOf(masses, first + 2), m3 = AttentionTiles.LargestOf(masses, first + 3);
        F2 largest;
        largest.X = Fast.Max(Fast.Max(Fast.Max(m0.X, m1.X), Fast.Max(m2.X, m3.X)), largest0);
        largest.Y = Fast.Max(Fast.Max(Fast.Max(m0.Y, m1.Y), Fast.Max(m2.Y, m3.Y)), largest1);
        return largest;
    }

    // Behind the last tile the last one again, with the factor zero: what is loaded and multiplied depends on no branch.
    private static F4 AddFour<THead, TTiles>(AttentionMemory memory, AttentionChunk chunk, (int First, int Count) tiles, int slice, AttentionSums sums, F4 sum)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int first = tiles.First, last = tiles.Count - 1, i1 = IntrinsicMath.Min(first + 1, last), i2 = IntrinsicMath.Min(first + 2, last), i3 = IntrinsicMath.Min(first + 3, last);
        ArrayView<float> masses = memory.MassesOf(chunk.Turn);
        AttentionProducts p0 = Products<THead, TTiles>(memory, chunk, first, i1, slice), p1 = Products<THead, TTiles>(memory, chunk, i2, i3, slice);
        F2 f0 = Factor(masses, first, true, sums), f1 = Factor(masses, i1, first < last, sums), f2 = Factor(masses, i2, first + 1 < last, sums), f3 = Factor(masses, i3, first + 2 < last, sums);
        sum = Add(p0.First, f0, true, sum);
        sum = Add(p0.Second, f1, first < last, sum);
        sum = Add(p1.First, f2, first + 1 < last, sum);
        return Add(p1.Second, f3, first + 2 < last, sum);
    }

    private static AttentionProducts Products<THead, TTiles>(AttentionMemory memory, AttentionChunk chunk, int tile0, int tile1, int slice)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int lane = Group.IdxX & 31, half = (2 * (lane < 16 ? tile0 : tile1)) + ((lane >> 3) & 1);
        U4 w = LdMatrix.X4(ref memory.WeightsOf(chunk.Turn).Cast<ushort>()[((half * DecodeAttention.MostGroup) + (lane & 7)) * 8]);
        return TTiles.Multiply<THead>(AttentionRing.Values<THead, TTiles>(memory.Ring, chunk.Stage, tile0), AttentionRing.Values<THead, TTiles>(memory.Ring, chunk.Stage, tile1), slice, w, lane);
    }

    // From a tile's largest score to the block's.
    private static F2 Factor(ArrayView<float> masses, int tile, bool counts, AttentionSums sums)
    {
        F2 own = AttentionTiles.LargestOf(masses, tile), factor;
        // Computed in any case, so that it is a choice and not a branch.
        float factor0 = Fast.Ex2(own.X - sums.Largest0), factor1 = Fast.Ex2(own.Y - sums.Largest1);
        factor.X = counts ? factor0 : 0;
        factor.Y = counts ? factor1 : 0;
        return factor;
    }

    // Zero times what is infinite would not be zero: what does not count is zero itself.
    private static F4 Add(F4 product, F2 factor, bool counts, F4 sum)
    {
        F4 added;
        added.X = Fast.Fma(counts ? product.X : 0, factor.X, sum.X);
        added.Y = Fast.Fma(counts ? product.Y : 0, factor.Y, sum.Y);
        added.Z = Fast.Fma(counts ? product.Z : 0, factor.X, sum.Z);
        added.W = Fast.Fma(counts ? product.W : 0, factor.Y, sum.W);
        return added;
    }

    private static F4 Scaled(F4 sum, float first, float second)
    {
        sum.X *= first;
        sum.Y *= second;
        sum.Z *= first;
        sum.W *= second;
        return sum;
    }

    /// <summary>The mass of the lane's heads over the block, after the last chunk.</summary>
    public static F2 Mass(ArrayView<float> masses, AttentionSums sums, int warps)
    {
        F2 mass = MassOfFour(masses, 0, sums, default);
        return warps > 4 ? MassOfFour(masses, 4, sums, mass) : mass;
    }

    private static F2 MassOfFour(ArrayView<float> masses, int first, AttentionSums sums, F2 mass)
    {
        F2 f0 = Factor(masses, first, true, sums), f1 = Factor(masses, first + 1, true, sums), f2 = Factor(masses, first + 2, true, sums), f3 = Factor(masses, first + 3, true, sums);
        F2 m0 = AttentionTiles.MassOf(masses, first), m1 = AttentionTiles.MassOf(masses, first + 1), m2 = AttentionTiles.MassOf(masses, first + 2), m3 = AttentionTiles.MassOf(masses, first + 3);
        mass.X = Fast.Fma(m3.X, f3.X, Fast.Fma(m2.X, f2.X, Fast.Fma(m1.X, f1.X, Fast.Fma(m0.X, f0.X, mass.X))));
        mass.Y = Fast.Fma(m3.Y, f3.Y, Fast.Fma(m2.Y, f2.Y, Fast.Fma(m1.Y, f1.Y, Fast.Fma(m0.Y, f0.Y, mass.Y))));
        return mass;
    }
}
