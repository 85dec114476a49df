using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of the weighted sum of a list's outputs.</summary>
internal struct ExpertCombineArgs
{
    /// <summary>The residual stream, updated in place, and the norm behind it, if there is one.</summary>
    public RmsNorm.Args Norm;

    /// <summary>[Rows · TopK, Width] float32, of pairs whose expert exists. Rows are whole 16-byte words.</summary>
    public ArrayView<float> Outputs;

    /// <summary>[Rows · TopK].</summary>
    public ArrayView<int> Experts;

    /// <summary>[Rows · TopK] float32.</summary>
    public ArrayView<float> Weights;

    public int TopK;
    public int ExpertCount;
}

/// <summary>A token's pairs, one a lane: the weight, and whether the expert exists.</summary>
internal struct CombineShare
{
    public uint Weight, Exists;
}

/// <summary>
/// residual[t, i] += Σ_j p[t, j] · y[t·k + j, i] over the j whose expert exists, in ascending order, each step one fused multiply-add; then, where asked, the RMSNorm before what follows.
/// </summary>
/// <remarks>
/// A block a token, four neighbours a thread. In a graph the two launches before this one are <see cref="ListedGateUp"/> and <see cref="ListedDown"/>; the second is released when all blocks of the first have waited, and
/// this one when all of the second have begun: routing and the residual stream are older and requested before this kernel waits. Eight outputs a thread are on their way together.
/// </remarks>
internal static class ExpertCombine
{
    private const int AtOnce = 8;

    public static void Run(ExpertCombineArgs a)
    {
        GridDependency.Release();
        for (long row = Grid.IdxX; row < a.Norm.Rows; row += Grid.DimX)
            for (int i = 0; i < a.Norm.Width; i += Group.DimX * 4)
                Combine(a, row, i + (Group.IdxX * 4));
        GridDependency.Wait();
    }

    public static void RunNorm(ExpertCombineArgs a)
    {
        ArrayView<float> scratch = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        GridDependency.Release();
        int step = Group.DimX * 4, first = Group.IdxX * 4;
        for (long row = Grid.IdxX; row < a.Norm.Rows; row += Grid.DimX)
        {
            F4 x0 = default, x1 = default;
            // A thread reads again what it has written itself, beyond the first two steps.
            for (int i = 0; i < a.Norm.Width; i += step)
            {
                F4 x = Combine(a, row, i + first);
                if (i == 0)
                    x0 = x;
                else if (i == step)
                    x1 = x;
            }
            RmsNorm.Normalize(a.Norm, row * a.Norm.Width, scratch, x0, x1);
        }
    }

    // Whole warps call. Waits. Zeros past the row's end, where nothing is stored.
    private static F4 Combine(ExpertCombineArgs a, long row, int i)
    {
        CombineShare share = Load(a, row * a.TopK);
        bool inside = i < a.Norm.Width;
        U4 old = Mem.LoadL2If(ref a.Norm.X.Cast<uint>()[(row * a.Norm.Width) + IntrinsicMath.Min(i, a.Norm.Width - 4)], inside ? 1u : 0u);
        F4 sum = default;
        sum.X = Interop.IntAsFloat(old.X);
        sum.Y = Interop.IntAsFloat(old.Y);
        sum.Z = Interop.IntAsFloat(old.Z);
        sum.W = Interop.IntAsFloat(old.W);
        GridDependency.Wait();
        ArrayView<uint> outputs = a.Outputs.Cast<uint>();
        for (int j = 0; j < a.TopK; j += AtOnce)
        {
            long at = (((row * a.TopK) + j) * a.Norm.Width) + IntrinsicMath.Min(i, a.Norm.Width - 4);
            uint e0 = Exists(share, j, inside), e1 = Exists(share, j + 1, inside), e2 = Exists(share, j + 2, inside), e3 = Exists(share, j + 3, inside);
            uint e4 = Exists(share, j + 4, inside), e5 = Exists(share, j + 5, inside), e6 = Exists(share, j + 6, inside), e7 = Exists(share, j + 7, inside);
            U4 y0 = Output(a, outputs, at, j, 0, e0), y1 = Output(a, outputs, at, j, 1, e1), y2 = Output(a, outputs, at, j, 2, e2), y3 = Output(a, outputs, at, j, 3, e3);
            U4 y4 = Output(a, outputs, at, j, 4, e4), y5 = Output(a, outputs, at, j, 5, e5), y6 = Output(a, outputs, at, j, 6, e6), y7 = Output(a, outputs, at, j, 7, e7);
            sum = Add(share, j, e0, y0, sum);
            sum = Add(share, j + 1, e1, y1, sum);
            sum = Add(share, j + 2, e2, y2, sum);
            sum = Add(share, j + 3, e3, y3, sum);
            sum = Add(share, j + 4, e4, y4, sum);
            sum = Add(share, j + 5, e5, y5, sum);
            sum = Add(share, j + 6, e6, y6, sum);
            sum = Add(share, j + 7, e7, y7, sum);
        }
        RmsNorm.Store(a.Norm, row * a.Norm.Width, i, sum);
        return sum;
    }

    // One pair a lane.
    private static CombineShare Load(ExpertCombineArgs a, long firstPair)
    {
        int lane = Group.IdxX & 31;
        long pair = firstPair + IntrinsicMath.Min(lane, a.TopK - 1);
        int expert = (int)Mem.LoadL2Word(ref a.Experts.Cast<uint>()[pair]);
        CombineShare share = default;
        share.Weight = Mem.LoadL2Word(ref a.Weights.Cast<uint>()[pair]);
        share.Exists = lane < a.TopK & expert >= 0 & expert < a.ExpertCount ? 1u : 0u;
        return share;
    }

    private static uint Exists(CombineShare share, int j, bool inside)
    {
        uint exists = WarpOps.Shuffle(share.Exists, j);
        return inside ? exists : 0;
    }

    private static U4 Output(ExpertCombineArgs a, ArrayView<uint> outputs, long at, int j, int ahead, uint exists) =>
        Mem.LoadL2If(ref outputs[at + (IntrinsicMath.Min(ahead, a.TopK - 1 - j) * (long)a.Norm.Width)], exists);

    // A pair without an expert changes no bit.
    private static F4 Add(CombineShare share, int j, uint exists, U4 y, F4 sum)
    {
        float weight = Interop.IntAsFloat(WarpOps.Shuffle(share.Weight, j));
        F4 next = default;
        next.X = Fast.Fma(weight, Interop.IntAsFloat(y.X), sum.X);
        next.Y = Fast.Fma(weight, Interop.IntAsFloat(y.Y), sum.Y);
        next.Z = Fast.Fma(weight, Interop.IntAsFloat(y.Z), sum.Z);
        next.W = Fast.Fma(weight, Interop.IntAsFloat(y.W), sum.W);
        next.X = exists != 0 ? next.X : sum.X;
        next.Y = exists != 0 ? next.Y : sum.Y;
        next.Z = exists != 0 ? next.Z : sum.Z;
        next.W = exists != 0 ? next.W : sum.W;
        return next;
    }
}
