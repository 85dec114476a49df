using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The threads that choose one token's experts. All of them call, and all get the same result.</summary>
internal interface IRouterTeam
{
    /// <summary>The calling thread's number.</summary>
    static abstract int Thread { get; }

    static abstract int Threads { get; }

    static abstract float Max(float x, ArrayView<float> scratch);

    static abstract float Sum(float x, ArrayView<float> scratch);

    /// <summary>The largest value and the lowest index that has it.</summary>
    static abstract ArgMaxResult ArgMax(float value, int index, ArrayView<float> values, ArrayView<int> indices);
}

/// <summary>A block.</summary>
internal readonly struct RouterBlock : IRouterTeam
{
    public static int Thread => Group.IdxX;

    public static int Threads => Group.DimX;

    public static float Max(float x, ArrayView<float> scratch) => BlockOps.Max(x, scratch);

    public static float Sum(float x, ArrayView<float> scratch) => BlockOps.Sum(x, scratch);

    public static ArgMaxResult ArgMax(float value, int index, ArrayView<float> values, ArrayView<int> indices) => BlockOps.ArgMax(value, index, values, indices);
}

/// <summary>A warp: no scratch, no barriers.</summary>
internal readonly struct RouterWarp : IRouterTeam
{
    public static int Thread => Warp.LaneIdx;

    public static int Threads => Warp.WarpSize;

    public static float Max(float x, ArrayView<float> scratch) => WarpOps.Max(x);

    public static float Sum(float x, ArrayView<float> scratch) => WarpOps.Sum(x);

    public static ArgMaxResult ArgMax(float value, int index, ArrayView<float> values, ArrayView<int> indices) => WarpOps.ArgMax(value, index);
}

/// <summary>Shared memory of a team: its token's logits, and what a block needs to meet.</summary>
internal struct RouterScratch
{
    /// <summary>[Experts].</summary>
    public ArrayView<float> Logits;

    /// <summary>[TopK] what the chosen ones have of the softmax, before it is divided.</summary>
    public ArrayView<float> Masses;

    /// <summary>[warps], of a block.</summary>
    public ArrayView<float> Values;

    /// <summary>[warps], of a block.</summary>
    public ArrayView<int> Indices;
}
