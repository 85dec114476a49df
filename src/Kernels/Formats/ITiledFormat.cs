using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>What x is in a product of <see cref="Gemm"/>, and what tensor cores multiply.</summary>
internal enum TiledOperands
{
    /// <summary>x is BF16; weights are or become BF16.</summary>
    Bf16,

    /// <summary>E4M3 on both sides, decoded to F16.</summary>
    DecodedFp8,

    /// <summary>E4M3 on both sides, multiplied as it is.</summary>
    Fp8,

    /// <summary>E2M1 on both sides with an E4M3 multiplier a row and 16 columns, multiplied as it is.</summary>
    Nvfp4,
}

/// <summary>
/// A weight format as <see cref="Gemm"/> multiplies it: codes lie in shared memory as they are stored and become BF16 in the
/// registers of the lane that multiplies them, 16 neighbouring codes of a row at a time.
/// </summary>
internal interface ITiledFormat
{
    /// <summary>
    /// log2 of the codes in a 32-bit word; 1 means that codes are BF16 numbers and nothing is decoded, or where both sides are codes 16 bits of
    /// them, which are moved as if they were one number.
    /// </summary>
    static abstract int CodesPerWordShift { get; }

    /// <summary>What is multiplied.</summary>
    static abstract TiledOperands Operands { get; }

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

    /// <summary>One product on tensor cores: 16 rows of W and 8 of x, added to what there is. NVFP4's takes multipliers and is another.</summary>
    static abstract F4 Multiply(U4 w, U2 x, F4 sum);

    /// <summary>Four codes of x as two pairs, in the order of <see cref="Decode"/>; for <see cref="TiledOperands.DecodedFp8"/>.</summary>
    static abstract U2 DecodeInput(uint codes);

    /// <summary>
    /// Codes 4·step … 4·step + 3 of a lane's 16 as two pairs of numbers that <see cref="Multiply"/> takes; <paramref name="step"/> is a constant. Four-bit
    /// codes are in the first two words.
    /// </summary>
    static abstract U2 Decode(U4 codes, int step, uint operand);
}
