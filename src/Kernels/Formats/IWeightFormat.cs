using ILGPU;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// How a weight matrix is stored, as a type argument of every kernel that reads weights. Static members are constants to
/// the compiler: a format costs no branch.
/// </summary>
internal interface IWeightFormat
{
    /// <summary>The format's layout and accuracy, for host code, tests and docs.</summary>
    static abstract WeightFormatInfo Info { get; }

    /// <summary>log2 of the codes in a 32-bit word: 1 for BF16, 2 for FP8, 3 for four bits.</summary>
    static abstract int CodesPerWordShift { get; }

    /// <summary>Whether codes are multiplied by scales.</summary>
    static abstract bool IsScaled { get; }

    /// <summary>
    /// Whether scales are of two levels: one for each 16 columns, so few-bit that its product with a code is a BF16 number,
    /// and one for the matrix. Otherwise a scale covers 32 columns or more.
    /// </summary>
    static abstract bool HasGroupScales { get; }

    /// <summary>
    /// How many numbers a weight is the sum of: 1, or 2 in a format of codes and residual codes. The terms of a matrix lie one
    /// behind the other, each laid out as a slab with scales of its own.
    /// </summary>
    static abstract int Terms { get; }

    /// <summary>Codes from the start of a row of <paramref name="k"/> to the next: rows start on whole bytes.</summary>
    static abstract int RowCodes(int k);

    /// <summary>The multiplier of the codes around row <paramref name="n"/> and column <paramref name="k"/>.</summary>
    static abstract float Scale(ScaleTable scales, int slab, int n, int k);

    /// <summary>What multiplies a matrix's whole sums where <see cref="HasGroupScales"/>, else 1.</summary>
    static abstract float MatrixScale(ScaleTable scales, int slab);

    /// <summary>
    /// What the decoders subtract from the codes around row <paramref name="n"/> and column <paramref name="k"/> in a format with
    /// zero points, encoded as they need it, else 0. One value holds where one block scale does.
    /// </summary>
    static abstract uint Offset(ScaleTable scales, int slab, int n, int k);

    /// <summary>
    /// What decoding needs in shared memory, filled by the whole block; every thread must call it once, before anything
    /// else, and gets the view to pass to the decoders.
    /// </summary>
    static abstract ArrayView<ushort> PrepareTable();

    /// <summary>
    /// Two consecutive codes of a word as a BF16 pair, exactly; <paramref name="pair"/> is a constant, 0 for the lowest bits.
    /// </summary>
    static abstract uint DecodePair(uint word, int pair, uint offset, ArrayView<ushort> table);

    /// <summary>One code by its index, which need not be aligned, as BF16 bits.</summary>
    static abstract ushort DecodeOne(ArrayView<byte> codes, long index, uint offset, ArrayView<ushort> table);
}
