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
        int end = (tile + 1 - warp.FirstTile) * warp.Chunks;
        for (int next = warp.Index + 1; next < HopperSkinnyGemm.Warps && warp.RunOf(next) < end; next++)
        {
            // A run without chunks has no piece.
            if (warp.RunOf(next + 1) == warp.RunOf(next))
                continue;
            uint from = Piece<TTiles>(warp, next);
            sums.Upper0 = Plus(sums.Upper0, SharedWindow.Load(from));
            sums.Lower0 = Plus(sums.Lower0, SharedWindow.Load(from + HalfBytes));
            if (TTiles.Count == 2)
            {
                sums.Upper1 = Plus(sums.Upper1, SharedWindow.Load(from + (2 * HalfBytes)));
                sums.Lower1 = Plus(sums.Lower1, SharedWindow.Load(from + (3 * HalfBytes)));
            }
        }
        Emit<TFormat, TInput, TOutput, TTiles>(a, warp, tile, sums);
    }

    /// <summary>A tile's sums over the block's part of K: to y, or where the parts meet.</summary>
    public static void Emit<TFormat, TInput, TOutput, TTiles>(HopperSkinnyArgs a, HopperSkinnyWarp warp, int tile, SkinnyAccumulators sums)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, ISkinnyOutput
        where TTiles : struct, ITiles
    {
        if (Grid.DimY == 1)
        {
            Store<TFormat, TInput, TOutput, TTiles>(a, warp, tile, sums);
            return;
        }
        long to = Partial<TTiles>(a, warp, Grid.IdxY, tile);
        // Columns beyond M are not read.
        if (2 * (warp.Lane & 3) < a.M)
        {
            Mem.StoreGlobalTo(to, Float32Output.Bits(sums.Upper0));
            Mem.StoreGlobalTo(to + HalfBytes, Float32Output.Bits(sums.Lower0));
        }
        if (TTiles.Count == 2 && (2 * (warp.Lane & 3)) + SkinnyGemm.Columns < a.M)
        {
            Mem.StoreGlobalTo(to + (2 * HalfBytes), Float32Output.Bits(sums.Upper1));
            Mem.StoreGlobalTo(to + (3 * HalfBytes), Float32Output.Bits(sums.Lower1));
        }
    }

    /// <summary>The last block of a column to be done adds the parts. Called once by every thread of the block.</summary>
    public static void AddParts<TFormat, TInput, TOutput, TTiles>(HopperSkinnyArgs a, HopperSkinnyWarp warp, ArrayView<byte> shared)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, ISkinnyOutput
        where TTiles : struct, ITiles
    {
        int parts = Grid.DimY;
        // Stages are not used any more.
        ArrayView<uint> arrived = shared.SubView(0, 16).Cast<uint>();
        // The block's sums are written before it counts.
        Group.Barrier();
        if (Group.IdxX == 0)
            arrived[0] = Fence.CountAround(a.Arrived + (Grid.IdxX * (long)sizeof(int)), (uint)(parts - 1));
        // The whole block knows its number, and sees what the others wrote before they counted.
        Group.Barrier();
        if (arrived[0] != (uint)(parts - 1))
            return;
        for (int tile = warp.FirstTile + warp.Index; tile < warp.EndTile; tile += HopperSkinnyGemm.Warps)
        {
            SkinnyAccumulators sums = default;
            bool first = 2 * (warp.Lane & 3) < a.M, second = (2 * (warp.Lane & 3)) + SkinnyGemm.Columns < a.M;
            for (int part = 0; part < parts; part++)
            {
                long from = Partial<TTiles>(a, warp, part, tile);
                if (first)
                {
                    sums.Upper0 = Plus(sums.Upper0, Mem.LoadL2From(from));
                    sums.Lower0 = Plus(sums.Lower0, Mem.LoadL2From(from + HalfBytes));
                }
                if (TTiles.Count == 2 && second)
                {
                    sums.Upper1 = Plus(sums.Upper1, Mem.LoadL2From(from + (2 * HalfBytes)));
                    sums.Lower1 = Plus(sums.Lower1, Mem.LoadL2From(from + (3 * HalfBytes)));
                }
            }
            Store<TFormat, TInput, TOutput, TTiles>(a, warp, tile, sums);
        }
    }

    private static uint Piece<TTiles>(HopperSkinnyWarp warp, int index)
        where TTiles : struct, ITiles => warp.Pieces + (uint)((index * TTiles.Count * HopperSkinnyGemm.SumsBytes) + (warp.Lane * 16));

    // Lanes of one pair of columns lie beside each other: few rows of x touch few sectors.
    private static long Partial<TTiles>(HopperSkinnyArgs a, HopperSkinnyWarp warp, int part, int tile)
        where TTiles : struct, ITiles =>
        a.Partials + ((((long)part * a.Tiles) + tile) * TTiles.Count * HopperSkinnyGemm.SumsBytes) + ((((warp.Lane & 3) * 8) + (warp.Lane >> 2)) * 16);

    private static void Store<TFormat, TInput, TOutput, TTiles>(HopperSkinnyArgs a, HopperSkinnyWarp warp, int tile, SkinnyAccumulators sums)
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
