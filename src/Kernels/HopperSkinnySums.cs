using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Element type of y of <see cref="HopperSkinnyGemm"/>.</summary>
internal interface ISkinnyOutput
{
    /// <summary>Stores element <paramref name="index"/>.</summary>
    static abstract void Store(long y, long index, float value);
}

/// <summary>BF16, rounded to nearest even.</summary>
internal readonly struct SkinnyBf16Output : ISkinnyOutput
{
    public static void Store(long y, long index, float value) => Mem.StoreHalfTo(y + (index * sizeof(ushort)), Bf16.FromFloat(value));
}

/// <summary>float32.</summary>
internal readonly struct SkinnyFloat32Output : ISkinnyOutput
{
    public static void Store(long y, long index, float value) => Mem.StoreWordTo(y + (index * sizeof(float)), Interop.FloatAsInt(value));
}

/// <summary>What becomes of a tile's sums in <see cref="HopperSkinnyGemm"/>.</summary>
internal static class HopperSkinnySums
{
    private const int HalfBytes = HopperSkinnyGemm.SumsBytes / 2;

    /// <summary>Puts a piece of a tile that another warp began where that one finds it.</summary>
    public static void Keep<TTiles>(HopperSkinnyWarp warp, SkinnyAccumulators sums)
        where TTiles : struct, ITiles
    {
        uint to = Piece<TTiles>(warp, warp.Index);
        SharedWindow.Store(to, Float32Output.Bits(sums.Upper0));
        SharedWindow.Store(to + HalfBytes, Float32Output.Bits(sums.Lower0));
        if (TTiles.Count == 2)
        {
            SharedWindow.Store(to + (2 * HalfBytes), Float32Output.Bits(sums.Upper1));
            SharedWindow.Store(to + (3 * HalfBytes), Float32Output.Bits(sums.Lower1));
        }
    }

    /// <summary>Adds the following warps' pieces of a tile that the warp has begun.</summary>
    public static void Finish<TFormat, TInput, TOutput, TTiles>(HopperSkinnyArgs a, HopperSkinnyWarp warp, int tile, SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, ISkinnyOutput
        where TTiles : struct, ITiles
    {
        int behind = (tile + 1 - HopperSkinnyRun.FirstTile(a)) * a.Chunks;
        for (int next = warp.Index + 1; next < HopperSkinnyGemm.Warps && HopperSkinnyRun.FirstNumber(a, next) < behind; next++)
        {
            // A run without chunks has no piece.
            if (HopperSkinnyRun.FirstNumber(a, next + 1) != HopperSkinnyRun.FirstNumber(a, next))
                sums = Plus<TTiles>(sums, Piece<TTiles>(warp, next));
        }
        Emit<TFormat, TInput, TOutput, TTiles>(a, warp, tile, sums);
    }

    private static uint Piece<TTiles>(HopperSkinnyWarp warp, int index)
        where TTiles : struct, ITiles => warp.Pieces + (uint)((index * TTiles.Count * HopperSkinnyGemm.SumsBytes) + (warp.Lane * 16));

    private static SkinnyAccumulators Plus<TTiles>(SkinnyAccumulators sums, uint from)
        where TTiles : struct, ITiles
    {
        sums.Upper0 = Plus(sums.Upper0, SharedWindow.Load(from));
        sums.Lower0 = Plus(sums.Lower0, SharedWindow.Load(from + HalfBytes));
        if (TTiles.Count == 2)
        {
            sums.Upper1 = Plus(sums.Upper1, SharedWindow.Load(from + (2 * HalfBytes)));
            sums.Lower1 = Plus(sums.Lower1, SharedWindow.Load(from + (3 * HalfBytes)));
        }
        return sums;
    }

    /// <summary>Stores a tile's sums, times what multiplies whole sums.</summary>
    public static void Emit<TFormat, TInput, TOutput, TTiles>(HopperSkinnyArgs a, HopperSkinnyWarp warp, int tile, SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, ISkinnyOutput
        where TTiles : struct, ITiles
    {
        int n = (tile * HopperSkinnyGemm.Rows) + HopperSkinnyProducts.Row<TFormat>(warp.Lane), m = 2 * (warp.Lane & 3);
        float scale = TFormat.HasGroupScales ? Mem.LoadReadOnlyFloat(a.Scales) * (TInput.AreCodes ? TFormat.Correction * TFormat.Correction : TFormat.Correction) : 1f;
        Store<TFormat, TInput, TOutput>(a, m, n, scale, sums.Upper0);
        Store<TFormat, TInput, TOutput>(a, m, n + 16, scale, sums.Lower0);
        if (TTiles.Count == 2)
        {
            Store<TFormat, TInput, TOutput>(a, m + SkinnyGemm.Columns, n, scale, sums.Upper1);
            Store<TFormat, TInput, TOutput>(a, m + SkinnyGemm.Columns, n + 16, scale, sums.Lower1);
        }
    }

    // Two rows of x, rows n and n + 8 of W.
    private static void Store<TFormat, TInput, TOutput>(HopperSkinnyArgs a, int m, int n, float scale, F4 sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, ISkinnyOutput
    {
        Store<TFormat, TInput, TOutput>(a, m, n, scale, sums.X, sums.Z);
        Store<TFormat, TInput, TOutput>(a, m + 1, n, scale, sums.Y, sums.W);
    }

    private static void Store<TFormat, TInput, TOutput>(HopperSkinnyArgs a, int m, int n, float scale, float upper, float lower)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, ISkinnyOutput
    {
        if (m >= a.M)
            return;
        if (TFormat.HasGroupScales)
        {
            upper *= scale;
            lower *= scale;
        }
        if (TInput.HasRowScales)
        {
            float row = Interop.IntAsFloat(Mem.LoadRelaxedFrom(a.InputScales + ((long)m * sizeof(float))));
            upper = Fast.Mul(upper, row);
            lower = Fast.Mul(lower, row);
        }
        long index = (m * a.OutputStride) + n;
        if (n < a.N)
            TOutput.Store(a.Output, index, upper);
        if (n + 8 < a.N)
            TOutput.Store(a.Output, index + 8, lower);
    }

    private static F4 Plus(F4 a, U4 b)
    {
        a.X += Interop.IntAsFloat(b.X);
        a.Y += Interop.IntAsFloat(b.Y);
        a.Z += Interop.IntAsFloat(b.Z);
        a.W += Interop.IntAsFloat(b.W);
        return a;
    }
}
