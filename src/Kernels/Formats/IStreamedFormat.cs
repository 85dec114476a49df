using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// A weight format as <see cref="SkinnyGemm"/> streams it through tensor cores: 64 bytes of a row at a time (a chunk), a
/// 16-byte word a lane, eight codes of a word a step.
/// </summary>
internal interface IStreamedFormat
{
    /// <summary>log2 of the codes in a 32-bit word.</summary>
    static abstract int CodesPerWordShift { get; }

    /// <summary>Matrices of codes whose sum is the weights, one after the other, each with its own scales: 1 or 2.</summary>
    static abstract int Terms { get; }

    /// <summary>Whether pairs are F16, not BF16.</summary>
    static abstract bool IsF16 { get; }

    /// <summary>Whether one float32 multiplies what a chunk adds to all rows of a tile: blocks have a tile's rows or more.</summary>
    static abstract bool HasTileScales { get; }

    /// <summary>Whether one float32 multiplies what a chunk adds to a row.</summary>
    static abstract bool HasRowScales { get; }

    /// <summary>
    /// Whether each 16 columns have an E4M3 multiplier, which the decoder multiplies by, and the matrix one that is multiplied
    /// at the very end.
    /// </summary>
    static abstract bool HasGroupScales { get; }

    /// <summary>Whether a row's chunk has a zero point, which the decoder subtracts.</summary>
    static abstract bool HasZeroPoints { get; }

    /// <summary>What undoes the powers of two of codes and inputs.</summary>
    static abstract float Correction { get; }

    /// <summary>The E4M3 multipliers of a word's two groups (bits 0–15) or its zero point as the decoder wants them.</summary>
    static abstract uint PrepareOperand(uint stored);

    /// <summary>
    /// Codes 8·step … 8·step + 7 of a lane's 16-byte word as four pairs, in the format's own order and times a power of two;
    /// <paramref name="step"/> is a constant.
    /// </summary>
    static abstract U4 Decode(U4 word, int step, uint operand);

    /// <summary>Their eight inputs, given as pairs of neighbours, in the same order, times a power of two.</summary>
    static abstract U4 Arrange(U4 x);
}
