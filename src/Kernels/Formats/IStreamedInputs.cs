using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>Inputs as <see cref="SkinnyGemm"/> reads them beside a streamed weight format.</summary>
internal interface IStreamedInputs
{
    /// <summary>Whether inputs are codes: a 16-byte word holds as many as a word of weights. Otherwise they are BF16.</summary>
    static abstract bool AreCodes { get; }

    /// <summary>Whether they are BF16 in the order in which they are multiplied.</summary>
    static abstract bool AreArranged { get; }

    /// <summary>
    /// Columns of a row that share a float32 multiplier of sums, 128 or 32; 0 without. With 32 a chunk's two halves are scaled apart.
    /// </summary>
    static abstract int ScaleColumns { get; }

    /// <summary>Whether one float32 a row multiplies whole sums.</summary>
    static abstract bool HasRowScales { get; }

    /// <summary>Whether sums are of whole numbers and added as such; weights then have one multiplier a row.</summary>
    static abstract bool AreIntegers { get; }

    /// <summary>Eight inputs of a step in the order of the weights' pairs, from a word of codes and what scales it.</summary>
    static abstract U4 Decode<TFormat>(U4 word, int step, uint operand)
        where TFormat : struct, IStreamedFormat;
}

/// <summary>BF16 inputs.</summary>
internal readonly struct StreamedBf16Inputs : IStreamedInputs
{
    public static bool AreCodes => false;

    public static bool AreArranged => false;

    public static int ScaleColumns => 0;

    public static bool HasRowScales => false;

    public static bool AreIntegers => false;

    public static U4 Decode<TFormat>(U4 word, int step, uint operand)
        where TFormat : struct, IStreamedFormat => TFormat.Arrange(word);
}

/// <summary>BF16 inputs in the order in which they are multiplied.</summary>
internal readonly struct StreamedArrangedInputs : IStreamedInputs
{
    public static bool AreCodes => false;

    public static bool AreArranged => true;

    public static int ScaleColumns => 0;

    public static bool HasRowScales => false;

    public static bool AreIntegers => false;

    public static U4 Decode<TFormat>(U4 word, int step, uint operand)
        where TFormat : struct, IStreamedFormat => word;
}

/// <summary>E4M3 codes with a multiplier a row and 128 columns. Converted by the hardware, which keeps NaN.</summary>
internal readonly struct StreamedFp8Inputs128 : IStreamedInputs
{
    public static bool AreCodes => true;

    public static bool AreArranged => false;

    public static int ScaleColumns => 128;

    public static bool HasRowScales => false;

    public static bool AreIntegers => false;

    public static U4 Decode<TFormat>(U4 word, int step, uint operand)
        where TFormat : struct, IStreamedFormat => TFormat.Arrange(ToF16(step == 0 ? word.X : word.Z, step == 0 ? word.Y : word.W));

    /// <summary>Eight codes as pairs of neighbours.</summary>
    public static U4 ToF16(uint first, uint second)
    {
        U4 pairs;
        pairs.X = Cvt.E4M3x2LowToF16x2(first);
        pairs.Y = Cvt.E4M3x2HighToF16x2(first);
        pairs.Z = Cvt.E4M3x2LowToF16x2(second);
        pairs.W = Cvt.E4M3x2HighToF16x2(second);
        return pairs;
    }
}

/// <summary>E4M3 codes with a multiplier a row and 32 columns.</summary>
internal readonly struct StreamedFp8Inputs32 : IStreamedInputs
{
    public static bool AreCodes => true;

    public static bool AreArranged => false;

    public static int ScaleColumns => 32;

    public static bool HasRowScales => false;

    public static bool AreIntegers => false;

    public static U4 Decode<TFormat>(U4 word, int step, uint operand)
        where TFormat : struct, IStreamedFormat => StreamedFp8Inputs128.Decode<TFormat>(word, step, operand);
}

/// <summary>NVFP4: codes and group multipliers as the weights', one multiplier a row.</summary>
internal readonly struct StreamedNvfp4Inputs : IStreamedInputs
{
    public static bool AreCodes => true;

    public static bool AreArranged => false;

    public static int ScaleColumns => 0;

    public static bool HasRowScales => true;

    public static bool AreIntegers => false;

    public static U4 Decode<TFormat>(U4 word, int step, uint operand)
        where TFormat : struct, IStreamedFormat => TFormat.Decode(word, step, operand);
}

/// <summary>INT4: codes as the weights', one multiplier a row, sums of whole numbers.</summary>
internal readonly struct StreamedInt4Inputs : IStreamedInputs
{
    public static bool AreCodes => true;

    public static bool AreArranged => false;

    public static int ScaleColumns => 0;

    public static bool HasRowScales => true;

    public static bool AreIntegers => true;

    public static U4 Decode<TFormat>(U4 word, int step, uint operand)
        where TFormat : struct, IStreamedFormat => TFormat.Decode(word, step, 0);
}
