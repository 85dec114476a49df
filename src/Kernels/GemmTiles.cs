using GpuKit.Ilgpu.Kernels.Formats;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What a block of <see cref="Gemm"/> computes at once. All are powers of two.</summary>
internal interface IGemmTile
{
    /// <summary>Rows of x.</summary>
    static abstract int M { get; }

    /// <summary>Rows of W.</summary>
    static abstract int N { get; }

    /// <summary>Columns a turn of the pipeline, 64 or 128.</summary>
    static abstract int K { get; }
}

internal readonly struct Tile16x64x128 : IGemmTile
{
    public static int M => 16;

    public static int N => 64;

    public static int K => 128;
}

internal readonly struct Tile32x64x128 : IGemmTile
{
    public static int M => 32;

    public static int N => 64;

    public static int K => 128;
}

internal readonly struct Tile32x64x64 : IGemmTile
{
    public static int M => 32;

    public static int N => 64;

    public static int K => 64;
}

internal readonly struct Tile64x64x64 : IGemmTile
{
    public static int M => 64;

    public static int N => 64;

    public static int K => 64;
}

internal readonly struct Tile64x128x64 : IGemmTile
{
    public static int M => 64;

    public static int N => 128;

    public static int K => 64;
}

internal readonly struct Tile128x128x64 : IGemmTile
{
    public static int M => 128;

    public static int N => 128;

    public static int K => 64;
}

internal readonly struct Tile128x128x128 : IGemmTile
{
    public static int M => 128;

    public static int N => 128;

    public static int K => 128;
}

internal readonly struct Tile128x256x64 : IGemmTile
{
    public static int M => 128;

    public static int N => 256;

    public static int K => 64;
}

internal readonly struct Tile256x128x64 : IGemmTile
{
    public static int M => 256;

    public static int N => 128;

    public static int K => 64;
}

/// <summary>Turns of the pipeline that shared memory holds: one is multiplied, the others are on their way.</summary>
internal interface IGemmStages
{
    static abstract int Count { get; }
}

internal readonly struct TwoStages : IGemmStages
{
    public static int Count => 2;
}

internal readonly struct ThreeStages : IGemmStages
{
    public static int Count => 3;
}

internal readonly struct FourStages : IGemmStages
{
    public static int Count => 4;
}

internal readonly struct SixStages : IGemmStages
{
    public static int Count => 6;
}

/// <summary>Sizes that follow from type arguments, for kernel and host; constants to the compiler.</summary>
internal static class GemmSizes<TFormat, TTile, TStages, TWarp>
    where TFormat : struct, ITiledFormat
    where TTile : struct, IGemmTile
    where TStages : struct, IGemmStages
    where TWarp : struct, IGemmWarp<TWarp>
{
    /// <summary>log2 of the warps along N.</summary>
    public static int WarpsShift => Log2(TTile.N) - Log2(16 * TWarp.WeightTiles);

    /// <summary>log2 of the threads of a block.</summary>
    public static int ThreadsShift => 5 + WarpsShift + Log2(TTile.M) - Log2(8 * TWarp.InputTiles);

    /// <summary>log2 of the bytes of a row of codes and 64 columns.</summary>
    public static int CodeRowShift => 8 - TFormat.CodesPerWordShift;

    /// <summary>Bytes of x a stage.</summary>
    public static int InputBytes => TTile.M * TTile.K * 2;

    /// <summary>Bytes of x and W a stage.</summary>
    public static int OperandBytes => InputBytes + ((TTile.N * TTile.K * 4) >> TFormat.CodesPerWordShift);

    /// <summary>Bytes of a stage: operands, then where both sides are codes the multipliers of this turn.</summary>
    public static int StageBytes => OperandBytes + (TFormat.Operands == TiledOperands.Bf16 ? 0 : TFormat.Operands == TiledOperands.Nvfp4 ? Nvfp4ScaleBytes : Fp8ScaleBytes);

    // A float32 a row of x and one every 32 rows of W, for 128 columns.
    private static int Fp8ScaleBytes => ((TTile.M * sizeof(float)) + (TTile.N >> 3) + 127) & ~127;

    // A byte a row of x and of W every 16 of 256 columns.
    private static int Nvfp4ScaleBytes => (TTile.M + TTile.N) * 16;

    /// <summary>Floats between rows of y's tile, which takes the stages' place at the end; four beside a power of two keep a warp's stores in 32 banks.</summary>
    public static int Pitch => TTile.N + 4;

    /// <summary>Where the row lists begin.</summary>
    public static int RowsStart => IntrinsicMath.Max(TStages.Count * StageBytes, TTile.M * Pitch * sizeof(float));

    /// <summary>Dynamic shared memory of a block: stages or y's tile, then a row's number in y, and in x; an expert's rows where they begin in x, in units of 16 bytes.</summary>
    public static int SharedBytes => RowsStart + (TTile.M * 2 * sizeof(int));

    /// <inheritdoc cref="GemmSizes.Log2"/>
    public static int Log2(int n) => GemmSizes.Log2(n);
}

/// <summary>What sizes need whatever the types.</summary>
internal static class GemmSizes
{
    /// <summary>Of a power of two up to 256: arithmetic alone, which the compiler folds at once, where comparisons would be branches to it.</summary>
    public static int Log2(int n) =>
        ((n >> 1) & 1) + (((n >> 2) & 1) * 2) + (((n >> 3) & 1) * 3) + (((n >> 4) & 1) * 4) + (((n >> 5) & 1) * 5) + (((n >> 6) & 1) * 6) + (((n >> 7) & 1) * 7) + (((n >> 8) & 1) * 8);
}
