using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Sixteen bytes of each of eight parts.</summary>
internal struct AttentionParts
{
    public U4 P0, P1, P2, P3, P4, P5, P6, P7;
}

/// <summary>
/// The end of <see cref="DecodeAttention"/>. A warp has 16 columns of all heads of its block's part; where there are others, it leaves them in the workspace, and the last of the warps with these columns
/// adds them in the order of the parts. So no block waits for another, and what is left to add is spread over several.
/// </summary>
internal static class AttentionMerge
{
    private const uint NegativeInfinity = 0xFF800000;

    /// <summary>A warp's 16 columns: stores the result, or leaves a part and, as the last, adds all.</summary>
    public static void Finish<THead, TTiles>(DecodeAttentionArgs a, AttentionSpan span, AttentionSums sums, F2 mass, int slice, F4 sum)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        // The same for all blocks of a KV head.
        if (span.Parts > 1)
        {
            Leave<THead>(a, sums, mass, slice, sum);
            if (Arrive<THead>(a, slice) != span.Parts - 1)
                return;
            sum = AddParts<THead>(a, span.Parts, slice, ref mass);
        }
        Store<THead, TTiles>(a, slice, sum, mass);
    }

    // The place of a part's 16 columns in the workspace, which has the most parts of every KV head.
    private static long Place<THead>(int part, int slice)
        where THead : struct, IHeadWidth => (((((long)Grid.IdxZ * Grid.DimY) + Grid.IdxY) * DecodeAttention.MostParts) + part) * DecodeAttention.Slices<THead>() + slice;

    private static void Leave<THead>(DecodeAttentionArgs a, AttentionSums sums, F2 mass, int slice, F4 sum)
        where THead : struct, IHeadWidth
    {
        int lane = Group.IdxX & 31;
        long place = Place<THead>(Grid.IdxX, slice);
        Mem.StoreGlobal(ref a.Sums.Cast<uint>()[(place * 128) + (lane * 4)], Words(sum.X, sum.Y, sum.Z, sum.W));
        // All lanes with the same heads have the same.
        if (lane < 4)
            Mem.StoreGlobal(ref a.Masses.Cast<uint>()[(place * 16) + (lane * 4)], Words(sums.Largest0, sums.Largest1, mass.X, mass.Y));
    }

    private static U4 Words(float x, float y, float z, float w)
    {
        U4 words;
        words.X = Interop.FloatAsInt(x);
        words.Y = Interop.FloatAsInt(y);
        words.Z = Interop.FloatAsInt(z);
        words.W = Interop.FloatAsInt(w);
        return words;
    }

    // How many parts were there before; the same in all lanes. The last clears the count for the next launch.
    private static int Arrive<THead>(DecodeAttentionArgs a, int slice)
        where THead : struct, IHeadWidth
    {
        int before = 0;
        WarpOps.Barrier(); // all lanes have written before one of them counts
        if ((Group.IdxX & 31) == 0)
            before = Fence.Count(ref a.Done[(((Grid.IdxZ * Grid.DimY) + Grid.IdxY) * DecodeAttention.Slices<THead>()) + slice]);
        before = (int)WarpOps.Shuffle((uint)before, 0);
        WarpOps.Barrier(); // and what the others wrote before they counted is seen by all lanes
        return before;
    }

    private static F4 AddParts<THead>(DecodeAttentionArgs a, int parts, int slice, ref F2 mass)
        where THead : struct, IHeadWidth
    {
        int lane = Group.IdxX & 31;
        if (lane == 0)
            a.Done[(((Grid.IdxZ * Grid.DimY) + Grid.IdxY) * DecodeAttention.Slices<THead>()) + slice] = 0;
        long place = Place<THead>(0, slice);
        ArrayView<uint> partSums = a.Sums.Cast<uint>().SubView((place * 128) + (lane * 4), a.Sums.Length - (place * 128) - (lane * 4));
        ArrayView<uint> masses = a.Masses.Cast<uint>().SubView((place * 16) + ((lane & 3) * 4), a.Masses.Length - (place * 16) - ((lane & 3) * 4));
        // All that the registers hold is requested at once: one after the other each would wait for the memory.
        AttentionParts even = LoadSums<THead>(partSums, 0), odd = default;
        if (parts > 8)
            odd = LoadSums<THead>(partSums, 8);
        // Lane g of those with the same heads knows the parts g, g + 8, g + 16 and g + 24.
        U4 m0 = LoadMasses<THead>(masses, lane >> 2, parts), m1 = LoadMasses<THead>(masses, (lane >> 2) + 8, parts);
        U4 m2 = LoadMasses<THead>(masses, (lane >> 2) + 16, parts), m3 = LoadMasses<THead>(masses, (lane >> 2) + 24, parts);
        float largest0 = Largest(Fast.Max(Fast.Max(Number(m0.X), Number(m1.X)), Fast.Max(Number(m2.X), Number(m3.X))));
        float largest1 = Largest(Fast.Max(Fast.Max(Number(m0.Y), Number(m1.Y)), Fast.Max(Number(m2.Y), Number(m3.Y))));
        F2 f0 = Factors(m0, largest0, largest1), f1 = Factors(m1, largest0, largest1), f2 = Factors(m2, largest0, largest1), f3 = Factors(m3, largest0, largest1);
        mass.X = Total(Fast.Fma(Number(m3.Z), f3.X, Fast.Fma(Number(m2.Z), f2.X, Fast.Fma(Number(m1.Z), f1.X, Number(m0.Z) * f0.X))));
        mass.Y = Total(Fast.Fma(Number(m3.W), f3.Y, Fast.Fma(Number(m2.W), f2.Y, Fast.Fma(Number(m1.W), f1.Y, Number(m0.W) * f0.Y))));
        F4 sum = AddEight(Existing(even, parts), f0, default);
        if (parts <= 8)
            return sum;
        sum = AddEight(odd, f1, sum);
        if (parts <= 16)
            return sum;
        even = LoadSums<THead>(partSums, 16);
        odd = LoadSums<THead>(partSums, 24);
        return AddEight(odd, f3, AddEight(even, f2, sum));
    }

    // The parts are a power of two; what lies behind the last one is anything.
    private static AttentionParts Existing(AttentionParts p, int parts)
    {
        if (parts < 8)
        {
            p.P4 = default;
            p.P5 = default;
            p.P6 = default;
            p.P7 = default;
        }
        if (parts < 4)
        {
            p.P2 = default;
            p.P3 = default;
        }
        return p;
    }

    private static F4 AddEight(AttentionParts p, F2 factors, F4 sum)
    {
        sum = Add(p.P3, factors, 3, Add(p.P2, factors, 2, Add(p.P1, factors, 1, Add(p.P0, factors, 0, sum))));
        return Add(p.P7, factors, 7, Add(p.P6, factors, 6, Add(p.P5, factors, 5, Add(p.P4, factors, 4, sum))));
    }

    private static AttentionParts LoadSums<THead>(ArrayView<uint> sums, int first)
        where THead : struct, IHeadWidth
    {
        int bytes = DecodeAttention.Slices<THead>() * 512;
        AttentionParts p;
        p.P0 = Mem.LoadL2At(ref sums[0], first * bytes);
        p.P1 = Mem.LoadL2At(ref sums[0], (first + 1) * bytes);
        p.P2 = Mem.LoadL2At(ref sums[0], (first + 2) * bytes);
        p.P3 = Mem.LoadL2At(ref sums[0], (first + 3) * bytes);
        p.P4 = Mem.LoadL2At(ref sums[0], (first + 4) * bytes);
        p.P5 = Mem.LoadL2At(ref sums[0], (first + 5) * bytes);
        p.P6 = Mem.LoadL2At(ref sums[0], (first + 6) * bytes);
        p.P7 = Mem.LoadL2At(ref sums[0], (first + 7) * bytes);
        return p;
    }

    private static U4 LoadMasses<THead>(ArrayView<uint> masses, int part, int parts)
        where THead : struct, IHeadWidth
    {
        U4 words = default;
        words.X = NegativeInfinity;
        words.Y = NegativeInfinity;
        if (part < parts)
            words = Mem.LoadL2(ref masses[part * DecodeAttention.Slices<THead>() * 16]);
        return words;
    }

    private static float Number(uint word) => Interop.IntAsFloat(word);

    private static F2 Factors(U4 masses, float largest0, float largest1)
    {
        F2 factors;
        factors.X = Fast.Ex2(Number(masses.X) - largest0);
        factors.Y = Fast.Ex2(Number(masses.Y) - largest1);
        return factors;
    }

    // Over the lanes that have the same heads.
    private static float Largest(float x)
    {
        x = Fast.Max(x, WarpOps.ShuffleXor(x, 4));
        x = Fast.Max(x, WarpOps.ShuffleXor(x, 8));
        return Fast.Max(x, WarpOps.ShuffleXor(x, 16));
    }

    private static float Total(float x)
    {
        x += WarpOps.ShuffleXor(x, 4);
        x += WarpOps.ShuffleXor(x, 8);
        return x + WarpOps.ShuffleXor(x, 16);
    }

    // The factors of a part are those of lane g = its number modulo 8.
    private static F4 Add(U4 part, F2 factors, int g, F4 sum)
    {
        int source = (g * 4) + (Group.IdxX & 3);
        float factor0 = Number(WarpOps.Shuffle(Interop.FloatAsInt(factors.X), source)), factor1 = Number(WarpOps.Shuffle(Interop.FloatAsInt(factors.Y), source));
        sum.X = Fast.Fma(Number(part.X), factor0, sum.X);
        sum.Y = Fast.Fma(Number(part.Y), factor1, sum.Y);
        sum.Z = Fast.Fma(Number(part.Z), factor0, sum.Z);
        sum.W = Fast.Fma(Number(part.W), factor1, sum.W);
        return sum;
    }

    private static void Store<THead, TTiles>(DecodeAttentionArgs a, int slice, F4 sum, F2 mass)
        where THead : struct, IHeadWidth
        where TTiles : struct, IAttentionTiles<TTiles>
    {
        int lane = Group.IdxX & 31, head = (lane & 3) * 2, headDim = 64 * THead.Halves;
        float inverse0 = Fast.Rcp(mass.X), inverse1 = Fast.Rcp(mass.Y);
        long target = ((((long)Grid.IdxY * a.GroupSize) + head) * headDim) + (slice * DecodeAttention.SliceColumns) + TTiles.Column(lane);
        if (head < a.GroupSize)
        {
            a.Output[target] = Bf16.FromFloat(sum.X * inverse0);
            a.Output[target + TTiles.ColumnStep] = Bf16.FromFloat(sum.Z * inverse0);
        }
        if (head + 1 < a.GroupSize)
        {
            a.Output[target + headDim] = Bf16.FromFloat(sum.Y * inverse1);
            a.Output[target + headDim + TTiles.ColumnStep] = Bf16.FromFloat(sum.W * inverse1);
        }
    }

    /// <summary>A position outside the cache has no keys.</summary>
    public static void StoreNaN<THead>(DecodeAttentionArgs a)
        where THead : struct, IHeadWidth
    {
        int count = a.GroupSize * 64 * THead.Halves;
        for (int i = Group.IdxX; i < count; i += Group.DimX)
            a.Output[((long)Grid.IdxY * count) + i] = 0x7FFF;
    }
}
