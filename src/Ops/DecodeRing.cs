using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>How the weights of a decode step get into shared memory.</summary>
internal enum RingCopies
{
    /// <summary>By the copy engine where the device has one.</summary>
    Auto,

    /// <summary>By asynchronous copies of the lanes.</summary>
    Lanes,

    /// <summary>By the copy engine (sm_90 and newer).</summary>
    Rows,
}

/// <summary>The slots of a launch.</summary>
/// <param name="Slots">Slots a warp.</param>
/// <param name="RowStride">Bytes between the rows of a strip.</param>
/// <param name="Bytes">Of all warps' slots.</param>
internal readonly record struct DecodeRing(int Slots, int RowStride, int Bytes)
{
    /// <summary>The architecture that has the copy engine.</summary>
    public const int RowsArch = 90;

    private const int Spread = 64;

    /// <summary>Whether a launch uses the copy engine.</summary>
    public static bool UsesRows(GpuDevice device, RingCopies copies) => copies == RingCopies.Rows || (copies == RingCopies.Auto && device.Target is { } target && target.Number >= RowsArch);

    /// <summary>
    /// The most slots, a power of two, that a warp with so many strips needs and that fit; rows lie in different banks where the copy engine writes them and there is room.
    /// </summary>
    /// <param name="rows">Whether the copy engine is used.</param>
    /// <param name="strips">Strips of a warp.</param>
    /// <param name="step">Strips that it needs at once.</param>
    /// <param name="warps">Warps of a block.</param>
    /// <param name="operandBytes">Multipliers of a slot.</param>
    /// <param name="available">Bytes that there are.</param>
    public static DecodeRing For(bool rows, int strips, int step, int warps, int operandBytes, int available)
    {
        int most = step;
        while (most < TileRing.MostSlots && most < strips)
            most *= 2;
        for (int slots = most; ; slots /= 2)
        {
            if (rows && Size(slots, TileRing.StripBytes + Spread) <= available)
                return Ring(slots, TileRing.StripBytes + Spread);
            if (slots == step || Size(slots, TileRing.StripBytes) <= available)
                return Ring(slots, TileRing.StripBytes);
        }

        int Size(int slots, int stride) => warps * slots * ((TileStream.Rows * stride) + operandBytes);
        DecodeRing Ring(int slots, int stride) => new(slots, stride, Size(slots, stride));
    }
}
