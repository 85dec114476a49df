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

/// <summary>Eight pairs of a token: their weights, and a bit for each whose expert exists.</summary>
internal struct CombineShares
{
    public float Weight0, Weight1, Weight2, Weight3, Weight4, Weight5, Weight6, Weight7;
    public int Exist;
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
            for (int i = Group.IdxX * 4; i < a.Norm.Width; i += Group.DimX * 4)
                RmsNorm.Store(a.Norm, row * a.Norm.Width, i, Combine(a, row, i));
        GridDependency.Wait();
    }

    public static void RunNorm(ExpertCombineArgs a)
    {
        ArrayView<float> scratch = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        GridDependency.Release();
        int step = Group.DimX * 4, first = Group.IdxX * 4;
        for (long row = Grid.IdxX; row < a.Norm.Rows; row += Grid.DimX)
        {
            long start = row * a.Norm.Width;
            F4 x0 = Combine(a, row, first), x1 = default;
            RmsNorm.Store(a.Norm, start, first, x0);
            if (step < a.Norm.Width)
            {
                x1 = Combine(a, row, first + step);
                RmsNorm.Store(a.Norm, start, first + step, x1);
            }
            // A thread reads again what it has written itself.
            for (int i = first + (2 * step); i < a.Norm.Width; i += step)
                RmsNorm.Store(a.Norm, start, i, Combine(a, row, i));
            RmsNorm.Normalize(a.Norm, start, scratch, x0, x1);
        }
    }

    // Zeros past the row's end. Waits.
    private static F4 Combine(ExpertCombineArgs a, long row, int i)
    {
        CombineShares shares = Load(a, row, 0);
        U4 old = Mem.LoadL2If(ref a.Norm.X.Cast<uint>()[(row * a.Norm.Width) + IntrinsicMath.Min(i, a.Norm.Width - 4)], i < a.Norm.Width ? 1u : 0u);
        F4 sum = default;
        sum.X = Interop.IntAsFloat(old.X);
        sum.Y = Interop.IntAsFloat(old.Y);
        sum.Z = Interop.IntAsFloat(old.Z);
        sum.W = Interop.IntAsFloat(old.W);
        GridDependency.Wait();
        sum = Add(a, row, 0, i, shares, sum);
        for (int j = AtOnce; j < a.TopK; j += AtOnce)
            sum = Add(a, row, j, i, Load(a, row, j), sum);
        return sum;
    }

    private static CombineShares Load(ExpertCombineArgs a, long row, int j)
    {
        CombineShares shares = default;
        shares.Weight0 = Share(a, row, j, 0, ref shares.Exist);
        shares.Weight1 = Share(a, row, j, 1, ref shares.Exist);
        shares.Weight2 = Share(a, row, j, 2, ref shares.Exist);
        shares.Weight3 = Share(a, row, j, 3, ref shares.Exist);
        shares.Weight4 = Share(a, row, j, 4, ref shares.Exist);
        shares.Weight5 = Share(a, row, j, 5, ref shares.Exist);
        shares.Weight6 = Share(a, row, j, 6, ref shares.Exist);
        shares.Weight7 = Share(a, row, j, 7, ref shares.Exist);
        return shares;
    }

    private static float Share(ExpertCombineArgs a, long row, int first, int j, ref int exist)
    {
        long pair = (row * a.TopK) + IntrinsicMath.Min(first + j, a.TopK - 1);
        int expert = (int)Mem.LoadL2Word(ref a.Experts.Cast<uint>()[pair]);
        exist |= first + j < a.TopK & expert >= 0 & expert < a.ExpertCount ? 1 << j : 0;
        return Interop.IntAsFloat(Mem.LoadL2Word(ref a.Weights.Cast<uint>()[pair]));
    }

    private static F4 Add(ExpertCombineArgs a, long row, int j, int i, CombineShares shares, F4 sum)
    {
        U4 y0 = Output(a, row, j, 0, i, shares.Exist), y1 = Output(a, row, j, 1, i, shares.Exist), y2 = Output(a, row, j, 2, i, shares.Exist), y3 = Output(a, row, j, 3, i, shares.Exist);
        U4 y4 = Output(a, row, j, 4, i, shares.Exist), y5 = Output(a, row, j, 5, i, shares.Exist), y6 = Output(a, row, j, 6, i, shares.Exist), y7 = Output(a, row, j, 7, i, shares.Exist);
        sum = Add(shares, 0, shares.Weight0, y0, sum);
        sum = Add(shares, 1, shares.Weight1, y1, sum);
        sum = Add(shares, 2, shares.Weight2, y2, sum);
        sum = Add(shares, 3, shares.Weight3, y3, sum);
        sum = Add(shares, 4, shares.Weight4, y4, sum);
        sum = Add(shares, 5, shares.Weight5, y5, sum);
        sum = Add(shares, 6, shares.Weight6, y6, sum);
        return Add(shares, 7, shares.Weight7, y7, sum);
    }

    private static U4 Output(ExpertCombineArgs a, long row, int first, int j, int i, int exist)
    {
        long pair = (row * a.TopK) + IntrinsicMath.Min(first + j, a.TopK - 1);
        uint wanted = i < a.Norm.Width & ((exist >> j) & 1) != 0 ? 1u : 0u;
        return Mem.LoadL2If(ref a.Outputs.Cast<uint>()[(pair * a.Norm.Width) + IntrinsicMath.Min(i, a.Norm.Width - 4)], wanted);
    }

    // A pair without an expert changes no bit.
    private static F4 Add(CombineShares shares, int j, float weight, U4 y, F4 sum)
    {
        bool exists = ((shares.Exist >> j) & 1) != 0;
        F4 next = default;
        next.X = Fast.Fma(weight, Interop.IntAsFloat(y.X), sum.X);
        next.Y = Fast.Fma(weight, Interop.IntAsFloat(y.Y), sum.Y);
        next.Z = Fast.Fma(weight, Interop.IntAsFloat(y.Z), sum.Z);
        next.W = Fast.Fma(weight, Interop.IntAsFloat(y.W), sum.W);
        next.X = exists ? next.X : sum.X;
        next.Y = exists ? next.Y : sum.Y;
        next.Z = exists ? next.Z : sum.Z;
        next.W = exists ? next.W : sum.W;
        return next;
    }
}
