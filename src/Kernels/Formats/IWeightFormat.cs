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

    /// <summary>log2 of the codes in a 32-bit word: 1 for BF16, 2 for FP8.</summary>
    static abstract int CodesPerWordShift { get; }

    /// <summary>Whether codes are multiplied by block scales.</summary>
    static abstract bool IsScaled { get; }

    /// <summary>
    /// What decoding needs in shared memory, filled by the whole block; every thread must call it once, before anything
    /// else, and gets the view to pass to the decoders.
    /// </summary>
    static abstract ArrayView<ushort> PrepareTable();

    /// <summary>
    /// Two consecutive codes of a word as a BF16 pair, exactly; <paramref name="pair"/> is a constant, 0 for the lowest bits.
    /// </summary>
    static abstract uint DecodePair(uint word, int pair, ArrayView<ushort> table);

    /// <summary>One code by its index in a row that need not be aligned, as BF16 bits.</summary>
    static abstract ushort DecodeOne(ArrayView<byte> codes, long index, ArrayView<ushort> table);
}
