using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>What the launches of whole tiles by the copy engine have in common: <see cref="BulkLinear"/>, <see cref="RoutedDown"/>.</summary>
internal static class BulkTiles
{
    private const int Arch = 90;

    /// <summary>Of their kernels.</summary>
    public static readonly KernelTraits Traits = new(32 * SkinnyGemm.MostWarps, Arch, NeedsWarp32: true, Overlaps: true, WantsSharedMemory: true);

    /// <summary>Whether a device has the copy engine; the CPU device has.</summary>
    public static bool Exist(GpuDevice device) => device.WarpSize == 32 && device.MaxThreadsPerBlock >= TileStream.Sums && (device.Target is not { } target || target.Number >= Arch);

    /// <summary>Most warps of a block.</summary>
    public static int MostWarps(GpuDevice device) => Math.Min(SkinnyGemm.MostWarps, device.MaxThreadsPerBlock / 32);

    /// <summary>Scales and bytes of a row.</summary>
    public static (int Scales, int RowBytes) RowOf(QuantizedMatrix matrix) => (matrix.Format == WeightFormat.Fp8Block ? matrix.ScaleTable.Columns : 0, (int)matrix.Format.RowBytes(matrix.K));
}
