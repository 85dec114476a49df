using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu.Bench;

/// <summary>What launches ask for beside what the driver knows of their kernels.</summary>
internal static class LaunchedShared
{
    /// <summary>Bytes of dynamic shared memory a block, the most of any launch of <paramref name="run"/>, which is carried out.</summary>
    public static int Most(GpuDevice device, Action run)
    {
        int most = 0;
        device.LaunchObserver = launch => most = Math.Max(most, launch.DynamicShared);
        try
        {
            run();
        }
        finally
        {
            device.LaunchObserver = null;
        }
        return most;
    }
}
