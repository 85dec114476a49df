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
        ArrayView<uint> values = AttentionRing.Values<THead, TTiles>(memory.Ring, chunk.Stage, 0), weights = memory.WeightsOf(chunk.Turn);
        if (warp < slices)
            sums.First = AddSlice<THead, TTiles>(values, weights, masses, tiles, warp, sums, Scaled(sums.First, decay0, decay1));
        // Blocks of fewer warps have two slices a warp.
        if (warps < slices)
            sums.Second = AddSlice<THead, TTiles>(values, weights, masses, tiles, warp + warps, sums, Scaled(sums.Second, decay0, decay1));
    }

    private static F2 LargestOfFour(ArrayView<float> masses, int first, float largest0, float largest1)
    {
        F2 m0 = AttentionTiles.LargestOf(masses, first), m1 = AttentionTiles.LargestOf(masses, first + 1), m2 = AttentionTiles.LargestOf(masses, first + 2), m3 = AttentionTiles.LargestOf(masses, first + 3);
        F2 largest;
        largest.X = Fast.Max(Fast.Max(Fast.Max(m0.X, m1.X), Fast.Max(m2.X, m3.X)), largest0);
        largest.Y = Fast.Max(Fast.Max(Fast.Max(m0.Y, m1.Y), Fast.Max(m2.Y, m3.Y)), largest1);
        return largest;
    }

    private static F4 AddSlice<THead, TTiles>(ArrayView<uint> values, ArrayView<uint> weights, ArrayView<float> masses, int tiles, int slice, AttentionSums sums, F4 sum)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int lane = Group.IdxX & 31, word = TTiles.ValueWord<THead>(slice, lane);
        sum = AddFour<THead, TTiles>(values, weights, masses, word, 0, sums, sum);
        // The same for the whole block.
        return tiles > 4 ? AddFour<THead, TTiles>(values, weights, masses, word, 4, sums, sum) : sum;
    }

    // What belongs to a tile is a constant number of bytes behind what belongs to the first: one address for all. Tiles that are not there are zeros.
    private static F4 AddFour<THead, TTiles>(ArrayView<uint> values, ArrayView<uint> weights, ArrayView<float> masses, int word, int first, AttentionSums sums, F4 sum)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int tileBytes = 4 * AttentionRing.TileWords<THead, TTiles>();
        AttentionProducts p0 = TTiles.Multiply<THead>(values, word, first * tileBytes, Weights(weights, first)), p1 = TTiles.Multiply<THead>(values, word, (first + 2) * tileBytes, Weights(weights, first + 2));
        F2 f0 = Factor(masses, first, sums), f1 = Factor(masses, first + 1, sums), f2 = Factor(masses, first + 2, sums), f3 = Factor(masses, first + 3, sums);
        return Add(p1.Second, f3, Add(p1.First, f2, Add(p0.Second, f1, Add(p0.First, f0, sum))));
    }

    // Of two tiles, transposed to the operand's order.
    private static U4 Weights(ArrayView<uint> weights, int tile) => LdMatrix.X4TransAt(ref weights.Cast<ushort>()[(Group.IdxX & 31) * 8], tile * AttentionTiles.TileWeightWords * sizeof(uint));

    // From a tile's largest score to the block's.
    private static F2 Factor(ArrayView<float> masses, int tile, AttentionSums sums)
    {
        F2 own = AttentionTiles.LargestOf(masses, tile), factor;
        factor.X = Fast.Ex2(own.X - sums.Largest0);
        factor.Y = Fast.Ex2(own.Y - sums.Largest1);
        return factor;
    }

    private static F4 Add(F4 product, F2 factor, F4 sum)
    {
        sum.X = Fast.Fma(product.X, factor.X, sum.X);
        sum.Y = Fast.Fma(product.Y, factor.Y, sum.Y);
        sum.Z = Fast.Fma(product.Z, factor.X, sum.Z);
        sum.W = Fast.Fma(product.W, factor.Y, sum.W);
        return sum;
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
        F2 f0 = Factor(masses, first, sums), f1 = Factor(masses, first + 1, sums), f2 = Factor(masses, first + 2, sums), f3 = Factor(masses, first + 3, sums);
        F2 m0 = AttentionTiles.MassOf(masses, first), m1 = AttentionTiles.MassOf(masses, first + 1), m2 = AttentionTiles.MassOf(masses, first + 2), m3 = AttentionTiles.MassOf(masses, first + 3);
        mass.X = Fast.Fma(m3.X, f3.X, Fast.Fma(m2.X, f2.X, Fast.Fma(m1.X, f1.X, Fast.Fma(m0.X, f0.X, mass.X))));
        mass.Y = Fast.Fma(m3.Y, f3.Y, Fast.Fma(m2.Y, f2.Y, Fast.Fma(m1.Y, f1.Y, Fast.Fma(m0.Y, f0.Y, mass.Y))));
        return mass;
    }
}
