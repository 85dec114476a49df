using ILGPU;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>BF16 weights: the codes are the values.</summary>
internal readonly struct Bf16Weights : IWeightFormat
{
    public static WeightFormatInfo Info => new("BF16", 16, false, 3.3895314e38f, 2e-3);

    public static int CodesPerWordShift => 1;

    public static bool IsScaled => false;

    public static bool HasGroupScales => false;

    public static int Terms => 1;

    public static int RowCodes(int k) => k;

    public static float Scale(ScaleTable scales, int slab, int n, int k) => 1f;

    public static float MatrixScale(ScaleTable scales, int slab) => 1f;

    public static uint Offset(ScaleTable scales, int slab, int n, int k) => 0;

    public static ArrayView<ushort> PrepareTable() => default;

    public static uint DecodePair(uint word, int pair, uint offset, ArrayView<ushort> table) => word;

    public static ushort DecodeOne(ArrayView<byte> codes, long index, uint offset, ArrayView<ushort> table) =>
        (ushort)(codes[2 * index] | (codes[(2 * index) + 1] << 8));
}
