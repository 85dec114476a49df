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
}
