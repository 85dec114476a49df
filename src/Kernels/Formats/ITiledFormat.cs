using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// A weight format as <see cref="Gemm"/> multiplies it: codes lie in shared memory as they are stored and become BF16 in the
/// registers of the lane that multiplies them, 16 neighbouring codes of a row at a time.
/// </summary>
internal interface ITiledFormat
{
    /// <summary>
    /// log2 of the codes in a 32-bit word; 1 means that codes are BF16 numbers and nothing is decoded, or where
    /// <see cref="HasInputScales"/> pairs of E4M3 codes, which are moved as if they were one.
    /// </summary>
    static abstract int CodesPerWordShift { get; }

    /// <summary>Whether x is of E4M3 codes, too, pairs of which are its columns, with a multiplier a row and 64 of those.</summary>
    static abstract bool HasInputScales { get; }

    /// <summary>Whether tensor cores multiply codes as they are.</summary>
    static abstract bool IsNative { get; }

    /// <summary>How many numbers a weight is the sum of; their codes lie one slab behind the other.</summary>
    static abstract int Terms { get; }

    /// <summary>Whether one float32 multiplies what 64 columns add to a row.</summary>
    static abstract bool HasRowScales { get; }

    /// <summary>Whether decoding needs an operand a row and 16 columns.</summary>
    static abstract bool HasOperands { get; }

    /// <summary>Whether whole sums are multiplied at the end.</summary>
    static abstract bool HasMatrixScale { get; }

    /// <summary>What the decoder needs for row <paramref name="n"/> and the 16 columns from <paramref name="k"/>.</summary>
    static abstract uint Operand(ScaleTable scales, int slab, int n, int k);

    /// <summary>What multiplies whole sums where <see cref="HasMatrixScale"/>.</summary>
    static abstract float MatrixScale(ScaleTable scales, int slab);

    /// <summary>One product on tensor cores: 16 rows of W and 8 of x, added to what there is.</summary>
    static abstract F4 Multiply(U4 w, U2 x, F4 sum);

    /// <summary>Four codes of x as two pairs, in the order of <see cref="Decode"/>; where <see cref="HasInputScales"/>.</summary>
    static abstract U2 DecodeInput(uint codes);

    /// <summary>
    /// Codes 4·step … 4·step + 3 of a lane's 16 as two pairs of numbers that <see cref="Multiply"/> takes; <paramref name="step"/> is a constant. Four-bit
    /// codes are in the first two words.
    /// </summary>
    static abstract U2 Decode(U4 codes, int step, uint operand);
}
