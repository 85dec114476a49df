using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="SkinnySplit"/>.</summary>
internal static class SkinnySplitLinear
{
    public static readonly int Force = int.Parse(Environment.GetEnvironmentVariable("GPUKIT_SPLIT") ?? "0");

    public static bool Chooses(int m, WeightFormat format, ActivationFormat? activations) => activations is null && format.Info().BitsPerCode == 4 && (Force == 2 || (Force == 1 && m > 8));

    /// <summary>y[m, N] = x[m, K] · W[N, K]ᵀ, in the order of sums that so many warps have in <see cref="SkinnyGemm"/>.</summary>
    public static void Launch(GpuStream stream, LaunchScratch scratch, WeightFormat format, in LinearArgs args, int warps)
    {
        int groups = Math.Min(warps, SkinnySplit.MostGroups), parts = warps / groups, rows = (args.N + SkinnySplit.Rows - 1) / SkinnySplit.Rows, tiles = SkinnyGemm.Tiles(args.M, false);
        long scales = SkinnySplitAside.ScaleBytes(format == WeightFormat.Nvfp4, args.K, groups, parts), zeros = format == WeightFormat.Int4Zero ? (args.ScaleTable.Columns + 1L) / 2 : 0;
        long shared = (groups * SkinnySplit.GroupWords(tiles) * sizeof(float)) + SkinnySplitAside.SharedBytes(scales, zeros);
        lock (scratch.Gate)
        {
            var all = new SkinnySplitArgs { Product = args, Partials = scratch.Partials, Arrived = scratch.Counters };
            stream.Device.Launch(SkinnySplitKernels.Get(format, args.IsFloat32 != 0, tiles), stream, (rows, parts, 1), groups * SkinnySplit.Tiles * 32, (int)shared, all);
        }
    }
}
