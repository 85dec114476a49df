using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>counter[0] += step: lets a recorded sequence of launches move on by itself.</summary>
internal static class DeviceCounter
{
    internal struct Args
    {
        public ArrayView<int> Counter;
        public int Step;
    }

    public static void Run(Args a)
    {
        if (Grid.IdxX == 0 && Group.IdxX == 0)
            a.Counter[0] += a.Step;
    }

    /// <summary>All counters that are not negative. One block.</summary>
    public static void RunAll(Args a)
    {
        for (int i = Group.IdxX; Grid.IdxX == 0 && i < a.Counter.Length; i += Group.DimX)
            if (a.Counter[i] >= 0)
                a.Counter[i] += a.Step;
    }
}
