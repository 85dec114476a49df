using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// A lane's sums of the second tile of x in shared memory, where the warps' sums will meet: INT4 with zero points in <see cref="SkinnyGemm"/> has no registers for them beside a chunk's codes, inputs and products, and the compiler took
/// 24 bytes of local memory (docs/kernels/gemv.md).
/// </summary>
internal static class SkinnyStash
{
    // Sixteen bytes a lane: of the upper 16 rows of W, then of the lower.
    private const int HalfWords = 32 * 4;

    /// <summary>Whether sums are kept here. Zero points are multiplied with BF16 inputs only: sums are scaled parts.</summary>
    public static bool Serves<TFormat, TTiles>()
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles => TTiles.Count == 2 && TFormat.HasZeroPoints;

    /// <summary>A lane's place, within what <see cref="SkinnySums"/> has for the warp in the block's memory, with sums of zero; nothing for other formats.</summary>
    public static ArrayView<uint> Locate<TFormat, TTiles>(ArrayView<byte> shared)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        if (!Serves<TFormat, TTiles>())
            return default;
        ArrayView<uint> own = shared.Cast<uint>().SubView(((Group.IdxX >> 5) * 2 * SkinnySums.TileSums) + ((Group.IdxX & 31) * 4), HalfWords + 4);
        Store(own, default, default);
        return own;
    }

    /// <summary>The lane's sums, of the upper rows and of the lower.</summary>
    public static (F4 Upper, F4 Lower) Load(ArrayView<uint> own) => (Float32Output.Values(Mem.LoadShared(ref own[0])), Float32Output.Values(Mem.LoadShared(ref own[HalfWords])));

    /// <summary>Replaces them.</summary>
    public static void Store(ArrayView<uint> own, F4 upper, F4 lower)
    {
        Mem.StoreShared(ref own[0], Float32Output.Bits(upper));
        Mem.StoreShared(ref own[HalfWords], Float32Output.Bits(lower));
    }

    /// <summary>Brings them back to the others; whole warps.</summary>
    public static void Take<TFormat, TTiles>(ArrayView<uint> own, ref SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        if (!Serves<TFormat, TTiles>())
            return;
        (sums.Upper1, sums.Lower1) = Load(own);
        // All lanes have theirs before any writes where others' are.
        WarpOps.Barrier();
    }
}
