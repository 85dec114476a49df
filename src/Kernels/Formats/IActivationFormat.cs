namespace GpuKit.Ilgpu.Kernels.Formats;

/// <summary>
/// How rows of activations are quantised, as a type argument of the quantising kernels. Scales belong to a row, never to several:
/// a row's bits do not depend on what else is in the batch. Codes are those of the weight format of the same codes, which is what
/// multiplying kernels read them with.
/// </summary>
internal interface IActivationFormat
{
    /// <summary>The format's layout, for host code, tests and benchmarks.</summary>
    static abstract ActivationFormatInfo Info { get; }

    /// <summary>log2 of the codes in a byte.</summary>
    static abstract int CodesPerByteShift { get; }

    /// <summary>log2 of the columns that share a scale of the lowest level.</summary>
    static abstract int GroupShift { get; }

    /// <summary>Whether a float32 scale of the row is refined by an E4M3 one a group.</summary>
    static abstract bool HasGroupScales { get; }

    /// <summary>The float32 multiplier for a group, or a whole row, with this largest finite magnitude.</summary>
    static abstract float Scale(float largest);

    /// <summary>The code of x in the lowest bits; a NaN without a code gives 0.</summary>
    static abstract uint Encode(float x, float scale);
}

/// <summary>Facts of an activation format that host code, tests and documents read.</summary>
/// <param name="Name">Name in tables and messages.</param>
/// <param name="BitsPerCode">Bits of one value.</param>
/// <param name="GroupShift">log2 of the columns that share a scale; <see cref="WholeRow"/> when all do.</param>
/// <param name="HasGroupScales">Whether the groups' scales are E4M3 bytes, beside one float32 a row.</param>
/// <param name="HasNaN">Whether a NaN has a code.</param>
internal readonly record struct ActivationFormatInfo(string Name, int BitsPerCode, int GroupShift, bool HasGroupScales, bool HasNaN)
{
    /// <summary>The group shift of one scale a row: K is at most 2³⁰.</summary>
    public const int WholeRow = 30;

    /// <summary>Bytes of a row of <paramref name="k"/> codes.</summary>
    public long RowBytes(int k) => (((long)k * BitsPerCode) + 7) / 8;

    /// <summary>Groups of a row of <paramref name="k"/> columns.</summary>
    public int Groups(int k) => (int)(((long)k + (1L << GroupShift) - 1) >> GroupShift);
}

/// <summary>E4M3 with one float32 a row and 128 columns.</summary>
internal readonly struct Fp8Group128 : IActivationFormat
{
    public static ActivationFormatInfo Info => new("FP8 groups of 128", 8, GroupShift, false, true);

    public static int CodesPerByteShift => 0;

    public static int GroupShift => 7;

    public static bool HasGroupScales => false;

    public static float Scale(float largest) => Fp8Code.Scale(largest);

    public static uint Encode(float x, float scale) => Fp8Code.Encode(x, scale);
}

/// <summary>E4M3 with one float32 a row and 32 columns.</summary>
internal readonly struct Fp8Group32 : IActivationFormat
{
    public static ActivationFormatInfo Info => new("FP8 groups of 32", 8, GroupShift, false, true);

    public static int CodesPerByteShift => 0;

    public static int GroupShift => 5;

    public static bool HasGroupScales => false;

    public static float Scale(float largest) => Fp8Code.Scale(largest);

    public static uint Encode(float x, float scale) => Fp8Code.Encode(x, scale);
}

/// <summary>E2M1 with one E4M3 a row and 16 columns and one float32 a row.</summary>
internal readonly struct Nvfp4Rows : IActivationFormat
{
    public static ActivationFormatInfo Info => new("NVFP4", 4, GroupShift, true, false);

    public static int CodesPerByteShift => 1;

    public static int GroupShift => 4;

    public static bool HasGroupScales => true;

    public static float Scale(float largest) => Nvfp4Code.MatrixScale(largest);

    public static uint Encode(float x, float scale) => Nvfp4Code.Encode(x, scale);
}

/// <summary>Signed four bits with one float32 (a BF16 number) a row.</summary>
internal readonly struct Int4Rows : IActivationFormat
{
    public static ActivationFormatInfo Info => new("INT4", 4, GroupShift, false, false);

    public static int CodesPerByteShift => 1;

    public static int GroupShift => ActivationFormatInfo.WholeRow;

    public static bool HasGroupScales => false;

    public static float Scale(float largest) => Int4Code.Scale(largest);

    public static uint Encode(float x, float scale) => Int4Code.Encode(x, scale);
}
