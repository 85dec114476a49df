using GpuKit.Ilgpu.Kernels.Formats;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// The multipliers of a block's rows of W in shared memory, behind the sums of <see cref="SkinnySweep"/>: in L1 a lane's request for them is as much work as one for codes. Rows are so far apart that eight of them are in
/// different banks. NVFP4's, bytes, are not worth it (docs/kernels/gemv.md).
/// </summary>
internal static class SweepAside
{
    /// <summary>Words of a row.</summary>
    public static int RowWords(int columns) => columns | 1;

    /// <summary>Starts to fill it; the whole block.</summary>
    public static void Request(LinearArgs a, SweepPlace place)
    {
        AsideRows rows = default;
        rows.First = place.FirstRow;
        rows.Count = place.Rows;
        rows.Bytes = a.ScaleTable.Columns * sizeof(float);
        rows.ToStep = RowWords(a.ScaleTable.Columns);
        AsideCopies.Request(place.Scales, a.Scales.Cast<byte>(), rows, hasPairs: false);
    }
}
