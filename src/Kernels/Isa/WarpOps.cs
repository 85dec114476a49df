using System.Numerics;
using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>The largest value of a warp and where it stood.</summary>
internal struct ArgMaxResult
{
    public float Value;
    public int Index;
}

/// <summary>Operations over a whole warp. All lanes must take part; reductions give every lane the same result.</summary>
/// <remarks>On the CPU accelerator the warp size may be smaller than 32; the butterfly then starts at half of it.</remarks>
internal static unsafe class WarpOps
{
    // A butterfly: after the step with distance m each lane holds the result over the lanes that differ in the bits ≥ m.
    private const string Butterfly = "{\n\t.reg .b32 v, o;\n\tmov.b32 v, %0;\n\t";
    private const string From16 = "shfl.sync.bfly.b32 o, v, 16, 31, 0xffffffff;\n\t";
    private const string From8 = "shfl.sync.bfly.b32 o, v, 8, 31, 0xffffffff;\n\t";
    private const string From4 = "shfl.sync.bfly.b32 o, v, 4, 31, 0xffffffff;\n\t";
    private const string From2 = "shfl.sync.bfly.b32 o, v, 2, 31, 0xffffffff;\n\t";
    private const string From1 = "shfl.sync.bfly.b32 o, v, 1, 31, 0xffffffff;\n\t";
    private const string End = "mov.b32 %d, v;\n\t}";
    private const string Add = "add.rn.f32 v, v, o;\n\t";
    private const string Larger = "max.NaN.f32 v, v, o;\n\t";

    /// <summary>Sum in the fixed order of a butterfly with distances 16, 8, 4, 2, 1.</summary>
    [IntrinsicImplementation]
    [Ptx(Butterfly + From16 + Add + From8 + Add + From4 + Add + From2 + Add + From1 + Add + End)]
    public static float Sum(float x)
    {
        // −0 is the neutral element that keeps every bit, for warp sizes that are no power of two.
        float* lanes = WarpEmulation.Gather("WarpOps.Sum", x);
        int size = Warp.WarpSize, slots = (int)BitOperations.RoundUpToPowerOf2((uint)size);
        float* sums = stackalloc float[slots];
        for (int i = 0; i < slots; i++)
            sums[i] = i < size ? lanes[i] : -0f;

        // In place: addition commutes, so both partners of a step get the same bits and halves can be folded.
        for (int distance = slots / 2; distance > 0; distance /= 2)
        {
            for (int i = 0; i < distance; i++)
                sums[i] += sums[i + distance];
        }

        return Ieee.CanonicalNaN(sums[0]);
    }

    private const string Split = "mov.b64 {l, h}, v;\n\tshfl.sync.bfly.b32 l, l, ";
    private const string Upper = ", 31, 0xffffffff;\n\tshfl.sync.bfly.b32 h, h, ";
    private const string AddJoined = ", 31, 0xffffffff;\n\tmov.b64 o, {l, h};\n\tadd.rn.f64 v, v, o;\n\t";

    /// <summary>Sum of float64 in the order of <see cref="Sum"/>; a value travels as two words.</summary>
    [IntrinsicImplementation]
    [Ptx("{\n\t.reg .b32 l, h;\n\t.reg .f64 v, o;\n\tmov.f64 v, %0;\n\t" +
        Split + "16" + Upper + "16" + AddJoined + Split + "8" + Upper + "8" + AddJoined + Split + "4" + Upper + "4" + AddJoined +
        Split + "2" + Upper + "2" + AddJoined + Split + "1" + Upper + "1" + AddJoined + "mov.f64 %d, v;\n\t}")]
    public static double SumDouble(double x)
    {
        double* lanes = WarpEmulation.Gather("WarpOps.SumDouble", x);
        int size = Warp.WarpSize, slots = (int)BitOperations.RoundUpToPowerOf2((uint)size);
        double* sums = stackalloc double[slots];
        for (int i = 0; i < slots; i++)
            sums[i] = i < size ? lanes[i] : -0.0;
        for (int distance = slots / 2; distance > 0; distance /= 2)
        {
            for (int i = 0; i < distance; i++)
                sums[i] += sums[i + distance];
        }

        return Ieee.CanonicalNaN(sums[0]);
    }

    /// <summary>The largest value; +0 is above −0, and a NaN in any lane gives NaN.</summary>
    [IntrinsicImplementation]
    [Ptx(Butterfly + From16 + Larger + From8 + Larger + From4 + Larger + From2 + Larger + From1 + Larger + End)]
    public static float Max(float x)
    {
        float* lanes = WarpEmulation.Gather("WarpOps.Max", x);
        float max = lanes[0];
        int size = Warp.WarpSize;
        for (int i = 1; i < size; i++)
            max = MathF.Max(max, lanes[i]);
        return Ieee.CanonicalNaN(max);
    }

    /// <summary>
    /// The largest value and the lowest index that goes with it. NaN counts as the largest value, so that it is seen;
    /// −0 counts, and is returned, as +0. A lane without a candidate passes (−∞, <see cref="int.MaxValue"/>).
    /// </summary>
    /// <remarks>
    /// Integer reductions in hardware (<c>redux</c>): a float maps to an unsigned key of the same order by setting the
    /// sign bit of positive numbers and inverting negative ones; then the least index among the lanes that hold the
    /// largest key. The result does not depend on an order of steps.
    /// </remarks>
    [IntrinsicImplementation]
    [Ptx("{\n\t.reg .b32 k, s, i;\n\t.reg .pred p;\n\t" +
        "add.rn.f32 k, %0, 0f00000000;\n\tsetp.nan.f32 p, k, k;\n\tselp.b32 k, 0x7fffffff, k, p;\n\t" +
        "shr.s32 s, k, 31;\n\tor.b32 s, s, 0x80000000;\n\txor.b32 k, k, s;\n\t" +
        "redux.sync.max.u32 s, k, 0xffffffff;\n\t" +
        "setp.eq.u32 p, k, s;\n\tselp.b32 i, %1, 0x7fffffff, p;\n\tredux.sync.min.s32 %d.1, i, 0xffffffff;\n\t" +
        "not.b32 k, s;\n\tshr.s32 k, k, 31;\n\tor.b32 k, k, 0x80000000;\n\txor.b32 s, s, k;\n\tmov.b32 %d.0, s;\n\t}")]
    public static ArgMaxResult ArgMax(float value, int index)
    {
        // x + 0 is +0 for −0.
        var best = new ArgMaxResult { Value = Ieee.CanonicalNaN(value + 0f), Index = index };
        ArgMaxResult* lanes = WarpEmulation.Gather("WarpOps.ArgMax", best);
        int size = Warp.WarpSize;
        for (int i = 0; i < size; i++)
        {
            ArgMaxResult other = lanes[i];
            bool larger = other.Value > best.Value || (float.IsNaN(other.Value) && !float.IsNaN(best.Value));
            bool tie = other.Value.Equals(best.Value) && other.Index < best.Index;
            if (larger || tie)
                best = other;
        }

        return best;
    }

    /// <summary>Sum modulo 2³².</summary>
    [IntrinsicImplementation, Ptx("redux.sync.add.s32 %d, %0, 0xffffffff;")]
    public static int SumInt(int x)
    {
        int* lanes = WarpEmulation.Gather("WarpOps.SumInt", x);
        int sum = 0, size = Warp.WarpSize;
        for (int i = 0; i < size; i++)
            sum = unchecked(sum + lanes[i]);
        return sum;
    }

    /// <summary>The largest unsigned number.</summary>
    [IntrinsicImplementation, Ptx("redux.sync.max.u32 %d, %0, 0xffffffff;")]
    public static uint MaxUInt(uint x)
    {
        uint* lanes = WarpEmulation.Gather("WarpOps.MaxUInt", x);
        uint max = lanes[0];
        int size = Warp.WarpSize;
        for (int i = 1; i < size; i++)
            max = Math.Max(max, lanes[i]);
        return max;
    }

    /// <summary>The value of lane <paramref name="lane"/> (modulo the warp size), which may differ from lane to lane.</summary>
    [IntrinsicImplementation, Ptx("shfl.sync.idx.b32 %d, %0, %1, 31, 0xffffffff;")]
    public static uint Shuffle(uint v, int lane) =>
        WarpEmulation.Gather("WarpOps.Shuffle", v)[(lane & 31) % Warp.WarpSize];

    /// <summary>The value of lane <c>LaneId ^ mask</c>; a lane's own where a smaller warp has no such lane.</summary>
    [IntrinsicImplementation, Ptx("shfl.sync.bfly.b32 %d, %0, %1, 31, 0xffffffff;")]
    public static float ShuffleXor(float v, int mask)
    {
        float* lanes = WarpEmulation.Gather("WarpOps.ShuffleXor", v);
        int source = Warp.LaneIdx ^ (mask & 31);
        return source < Warp.WarpSize ? lanes[source] : v;
    }

    /// <summary>1 where any lane's number is not 0, else 0: the same in all lanes.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .pred any; setp.ne.u32 any, %0, 0; vote.sync.any.pred any, any, 0xffffffff; selp.u32 %d, 1, 0, any; }")]
    public static unsafe uint Any(uint x)
    {
        uint* all = WarpEmulation.Gather("vote.sync", x);
        int size = Warp.WarpSize;
        for (int i = 0; i < size; i++)
            if (all[i] != 0)
                return 1;
        return 0;
    }

    /// <summary>A bit for each lane whose number is not 0.</summary>
    [IntrinsicImplementation, Ptx("{ .reg .pred own; setp.ne.u32 own, %0, 0; vote.sync.ballot.b32 %d, own, 0xffffffff; }")]
    public static unsafe uint Ballot(uint x)
    {
        uint* all = WarpEmulation.Gather("vote.sync.ballot", x);
        int size = Warp.WarpSize;
        uint bits = 0;
        for (int i = 0; i < size; i++)
            bits |= all[i] != 0 ? 1u << i : 0;
        return bits;
    }

    /// <summary>Waits for all lanes and makes their memory accesses before it visible after it, within the warp.</summary>
    [IntrinsicImplementation, Ptx("bar.warp.sync 0xffffffff;")]
    public static void Barrier()
    {
        WarpEmulation.Begin<byte>("WarpOps.Barrier");
        WarpEmulation.Meet();
    }

    /// <summary>This thread's lane, 0..31.</summary>
    [IntrinsicImplementation, Ptx("mov.u32 %d, %%laneid;")]
    public static uint LaneId() => (uint)Warp.LaneIdx;
}
