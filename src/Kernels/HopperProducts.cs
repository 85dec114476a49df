using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Operands and tile of a product on the tensor cores of sm_90a: a type argument of <see cref="HopperGemm"/>.</summary>
internal interface IHopperProduct
{
    /// <summary>Columns of y that a warpgroup computes at once, for 64 rows.</summary>
    static abstract int Columns { get; }

    /// <summary>Whether the two warpgroups of a block have the same 64 rows and columns side by side, instead of 128 rows and the same columns.</summary>
    static abstract bool SharesRows { get; }

    /// <summary>Steps along K that shared memory holds.</summary>
    static abstract int Stages { get; }

    /// <summary>log2 of the bytes of an element of x and W.</summary>
    static abstract int ElementShift { get; }

    /// <summary>Whether the sums of 128 columns of K are scaled and added to totals (block-scaled FP8).</summary>
    static abstract bool IsScaled { get; }

    /// <summary>With scales: whether a warpgroup lets the other one multiply as soon as its own products have begun, or when half of them are done. What is faster differs.</summary>
    static abstract bool YieldsAtOnce { get; }

    /// <summary>One step along K, 128 bytes of each row; with scales half of one.</summary>
    static abstract void Multiply(ulong a, ulong b, uint adds);
}

/// <summary>BF16, 128 × 256 a block: the least traffic a product.</summary>
internal readonly struct HopperBf16N256 : IHopperProduct
{
    public static int Columns => 256;

    public static bool SharesRows => false;

    public static int Stages => 4;

    public static int ElementShift => 1;

    public static bool IsScaled => false;

    public static bool YieldsAtOnce => false;

    public static void Multiply(ulong a, ulong b, uint adds) => Wgmma.MultiplyBf16N256(a, b, adds);
}

/// <summary>BF16, 128 × 192 a block: where that divides the work among the multiprocessors better.</summary>
internal readonly struct HopperBf16N192 : IHopperProduct
{
    public static int Columns => 192;

    public static bool SharesRows => false;

    public static int Stages => 4;

    public static int ElementShift => 1;

    public static bool IsScaled => false;

    public static bool YieldsAtOnce => false;

    public static void Multiply(ulong a, ulong b, uint adds) => Wgmma.MultiplyBf16N192(a, b, adds);
}

/// <summary>BF16, 128 × 160 a block: likewise.</summary>
internal readonly struct HopperBf16N160 : IHopperProduct
{
    public static int Columns => 160;

    public static bool SharesRows => false;

    public static int Stages => 5;

    public static int ElementShift => 1;

    public static bool IsScaled => false;

    public static bool YieldsAtOnce => false;

    public static void Multiply(ulong a, ulong b, uint adds) => Wgmma.MultiplyBf16N160(a, b, adds);
}

/// <summary>BF16, 128 × 128 a block.</summary>
internal readonly struct HopperBf16N128 : IHopperProduct
{
    public static int Columns => 128;

    public static bool SharesRows => false;

    public static int Stages => 6;

    public static int ElementShift => 1;

    public static bool IsScaled => false;

    public static bool YieldsAtOnce => false;

    public static void Multiply(ulong a, ulong b, uint adds) => Wgmma.MultiplyBf16N128(a, b, adds);
}

/// <summary>BF16, 64 × 160 a block: likewise, for few rows.</summary>
internal readonly struct HopperBf16N80 : IHopperProduct
{
    public static int Columns => 80;

    public static bool SharesRows => true;

    public static int Stages => 6;

    public static int ElementShift => 1;

    public static bool IsScaled => false;

    public static bool YieldsAtOnce => false;

    public static void Multiply(ulong a, ulong b, uint adds) => Wgmma.MultiplyBf16N80(a, b, adds);
}

/// <summary>BF16, 64 × 128 a block: for few rows or few columns.</summary>
internal readonly struct HopperBf16N64 : IHopperProduct
{
    public static int Columns => 64;

    public static bool SharesRows => true;

    public static int Stages => 8;

    public static int ElementShift => 1;

    public static bool IsScaled => false;

    public static bool YieldsAtOnce => false;

    public static void Multiply(ulong a, ulong b, uint adds) => Wgmma.MultiplyBf16N64(a, b, adds);
}

/// <summary>FP8 × FP8 with a scale a row and 128 columns of x and a block of W, 128 × 128 a block.</summary>
internal readonly struct HopperFp8N128 : IHopperProduct
{
    public static int Columns => 128;

    public static bool SharesRows => false;

    public static int Stages => 6;

    public static int ElementShift => 0;

    public static bool IsScaled => true;

    public static bool YieldsAtOnce => true;

    public static void Multiply(ulong a, ulong b, uint adds) => WgmmaFp8.MultiplyN128(a, b, adds);
}

/// <summary>The same, 128 × 160 a block: where that divides the work among the multiprocessors better.</summary>
internal readonly struct HopperFp8N160 : IHopperProduct
{
    public static int Columns => 160;

    public static bool SharesRows => false;

    public static int Stages => 5;

    public static int ElementShift => 0;

    public static bool IsScaled => true;

    public static bool YieldsAtOnce => false;

    public static void Multiply(ulong a, ulong b, uint adds) => WgmmaFp8.MultiplyN160(a, b, adds);
}

/// <summary>The same, 128 × 192 a block: a fifth less traffic a product.</summary>
internal readonly struct HopperFp8N192 : IHopperProduct
{
    public static int Columns => 192;

    public static bool SharesRows => false;

    public static int Stages => 4;

    public static int ElementShift => 0;

    public static bool IsScaled => true;

    public static bool YieldsAtOnce => true;

    public static void Multiply(ulong a, ulong b, uint adds) => WgmmaFp8.MultiplyN192(a, b, adds);
}

/// <summary>How many blocks work on neighbouring rows and share the tile of W.</summary>
internal interface IClusterSize
{
    static abstract int Count { get; }
}

/// <summary>Each block loads all it needs.</summary>
internal readonly struct OneBlock : IClusterSize
{
    public static int Count => 1;
}

/// <summary>Each of two blocks loads half of W's tile for both.</summary>
internal readonly struct TwoBlocks : IClusterSize
{
    public static int Count => 2;
}

/// <summary>Element type of y, and how a warpgroup's totals become tiles of it.</summary>
internal interface IHopperOutput
{
    /// <summary>Columns of a slab: 128 bytes.</summary>
    static abstract int SlabColumns { get; }

    /// <summary>Writes the slab of the totals that begins with a column to shared memory.</summary>
    static abstract void Store(int column, uint to);
}

/// <summary>BF16, rounded to nearest even.</summary>
internal readonly struct HopperBf16Output : IHopperOutput
{
    public static int SlabColumns => 64;

    public static void Store(int column, uint to)
    {
        if (column == 0)
            WgmmaStore.Bf16Slab0(to);
        else if (column == 64)
            WgmmaStore.Bf16Slab1(to);
        else if (column == 128)
            WgmmaStore.Bf16Slab2(to);
        else if (column == 192)
            WgmmaStore.Bf16Slab3(to);
        else if (column == 16)
            WgmmaStore.Bf16From16(to);
        else
            WgmmaStore.Bf16From96(to);
    }
}

/// <summary>float32.</summary>
internal readonly struct HopperFloat32Output : IHopperOutput
{
    public static int SlabColumns => 32;

    public static void Store(int column, uint to)
    {
        if (column == 0)
            WgmmaStore.Float32Slab0(to);
        else if (column == 32)
            WgmmaStore.Float32Slab1(to);
        else if (column == 64)
            WgmmaStore.Float32Slab2(to);
        else if (column == 96)
            WgmmaStore.Float32Slab3(to);
        else if (column == 128)
            WgmmaStore.Float32Slab4(to);
        else if (column == 160)
            WgmmaStore.Float32Slab5(to);
        else if (column == 192)
            WgmmaStore.Float32Slab6(to);
        else if (column == 224)
            WgmmaStore.Float32Slab7(to);
        else
            WgmmaStore.Float32From48(to);
    }
}
