using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>How many rows of x a product of <see cref="HopperMixedGemm"/> or <see cref="HopperSplitGemm"/> spans: a tile that has fewer takes a narrower one.</summary>
internal interface IMixedWidth
{
    static abstract int Rows { get; }

    /// <summary>A quarter step with the even registers.</summary>
    static abstract void Even(ulong b, uint adds);

    /// <summary>A quarter step with the odd registers.</summary>
    static abstract void Odd(ulong b, uint adds);
}

/// <summary>32 rows.</summary>
internal readonly struct MixedRows32 : IMixedWidth
{
    public static int Rows => 32;

    public static void Even(ulong b, uint adds) => WgmmaMixed.MultiplyEvenN32(b, adds);

    public static void Odd(ulong b, uint adds) => WgmmaMixed.MultiplyOddN32(b, adds);
}

/// <summary>64 rows.</summary>
internal readonly struct MixedRows64 : IMixedWidth
{
    public static int Rows => 64;

    public static void Even(ulong b, uint adds) => WgmmaMixed.MultiplyEvenN64(b, adds);

    public static void Odd(ulong b, uint adds) => WgmmaMixed.MultiplyOddN64(b, adds);
}

/// <summary>128 rows.</summary>
internal readonly struct MixedRows128 : IMixedWidth
{
    public static int Rows => 128;

    public static void Even(ulong b, uint adds) => WgmmaMixed.MultiplyEvenN128(b, adds);

    public static void Odd(ulong b, uint adds) => WgmmaMixed.MultiplyOddN128(b, adds);
}

/// <summary>160 rows.</summary>
internal readonly struct MixedRows160 : IMixedWidth
{
    public static int Rows => 160;

    public static void Even(ulong b, uint adds) => WgmmaMixed.MultiplyEvenN160(b, adds);

    public static void Odd(ulong b, uint adds) => WgmmaMixed.MultiplyOddN160(b, adds);
}

/// <summary>176 rows.</summary>
internal readonly struct MixedRows176 : IMixedWidth
{
    public static int Rows => 176;

    public static void Even(ulong b, uint adds) => WgmmaMixed.MultiplyEvenN176(b, adds);

    public static void Odd(ulong b, uint adds) => WgmmaMixed.MultiplyOddN176(b, adds);
}

/// <summary>192 rows.</summary>
internal readonly struct MixedRows192 : IMixedWidth
{
    public static int Rows => 192;

    public static void Even(ulong b, uint adds) => WgmmaMixed.MultiplyEvenN192(b, adds);

    public static void Odd(ulong b, uint adds) => WgmmaMixed.MultiplyOddN192(b, adds);
}
