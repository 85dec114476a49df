using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// All sums of a lane: a warp's part of the tile. Compositions of <see cref="GemmTwice{T}"/> unroll the loop over x at compile
/// time, so that sums are registers and offsets constants.
/// </summary>
internal interface IGemmWarp<TSelf>
    where TSelf : struct, IGemmWarp<TSelf>
{
    /// <summary>Fragments of x, 8 rows each.</summary>
    static abstract int InputTiles { get; }

    /// <summary>Fragments of W, 16 rows each.</summary>
    static abstract int WeightTiles { get; }

    /// <summary>Adds the products of 16 columns with up to 64 rows of x, 16 a field of <paramref name="x"/>.</summary>
    static abstract void Step<TFormat>(ref TSelf sums, GemmFragments x, GemmFragments w)
        where TFormat : struct, ITiledFormat;

    /// <summary>
    /// Adds the products of 64 columns with all pairs of fragments of x but the last. <paramref name="x"/> has the units of the first pair and leaves with those of the
    /// last: what is multiplied next is loaded while something is multiplied.
    /// </summary>
    static abstract void AllButLast<TFormat>(ref TSelf sums, ref GemmUnits x, GemmUnitRows rows, int bytes, GemmChunk w)
        where TFormat : struct, ITiledFormat;

    /// <summary>The same with all pairs, of a warp that has more than these.</summary>
    static abstract void All<TFormat>(ref TSelf sums, ref GemmUnits x, GemmUnitRows rows, int bytes, GemmChunk w)
        where TFormat : struct, ITiledFormat;

    /// <summary>The last pair.</summary>
    static abstract void Last<TFormat>(ref TSelf sums, GemmUnits x, GemmChunk w)
        where TFormat : struct, ITiledFormat;

    /// <summary>Adds the products of 64 columns with all pairs of fragments of x, one after the other, each loaded when it is multiplied.</summary>
    static abstract void Chunk<TFormat>(ref TSelf sums, GemmUnitRows rows, int bytes, GemmChunk w)
        where TFormat : struct, ITiledFormat;

    /// <summary>Adds the unscaled products of the first eight of each lane's 16 columns, or of the others, with all pairs at once: more products that do not wait for each other, and more registers.</summary>
    static abstract void HalfChunk<TFormat>(ref TSelf parts, GemmUnitRows rows, int bytes, GemmChunk w, bool others)
        where TFormat : struct, ITiledFormat;

    /// <summary>sums += parts times what multiplies them; of a format without such, whose parts began with the sums, sums = parts.</summary>
    static abstract void Fold<TFormat>(ref TSelf sums, TSelf parts, GemmScales scales)
        where TFormat : struct, ITiledFormat;

    /// <summary>Adds the scaled products of E4M3 codes: 128 columns where they are multiplied as they are, else 64.</summary>
    static abstract void Codes<TFormat>(ref TSelf sums, Fp8Inputs x, int bytes, GemmChunk w)
        where TFormat : struct, ITiledFormat;

    /// <summary>Adds the products of 256 columns of E2M1 codes.</summary>
    static abstract void Codes(ref TSelf sums, Nvfp4Inputs x, int bytes, Nvfp4Weights w);

    /// <inheritdoc cref="IGemmPair{TSelf}.Publish"/>
    static abstract void Publish(TSelf sums, ArrayView<uint> target, int bytes, int pitch);
}

/// <summary>Two fragments of x.</summary>
internal struct GemmOnce<TPair> : IGemmWarp<GemmOnce<TPair>>
    where TPair : struct, IGemmPair<TPair>
{
    /// <summary>From a fragment of x to the next in shared memory.</summary>
    public const int InputBytes = 8 * GemmCopies.RowBytes;

    public TPair Sums;

    public static int InputTiles => 2;

    public static int WeightTiles => TPair.WeightTiles;

    public static void Step<TFormat>(ref GemmOnce<TPair> sums, GemmFragments x, GemmFragments w)
        where TFormat : struct, ITiledFormat => TPair.Step<TFormat>(ref sums.Sums, w, Low(x.Row0), High(x.Row0));

    public static void AllButLast<TFormat>(ref GemmOnce<TPair> sums, ref GemmUnits x, GemmUnitRows rows, int bytes, GemmChunk w)
        where TFormat : struct, ITiledFormat
    {
    }

    // Registers are as good as all taken: half of the units give way to the next pair's as soon as they are multiplied.
    public static void All<TFormat>(ref GemmOnce<TPair> sums, ref GemmUnits x, GemmUnitRows rows, int bytes, GemmChunk w)
        where TFormat : struct, ITiledFormat
    {
        TPair part = TFormat.HasRowScales ? default : sums.Sums;
        TPair.Step<TFormat>(ref part, w.Step0, Low(x.Even0), Low(x.Even1));
        TPair.Step<TFormat>(ref part, w.Step1, High(x.Even0), High(x.Even1));
        x.LoadEven(rows, bytes + (2 * InputBytes));
        TPair.Step<TFormat>(ref part, w.Step2, Low(x.Odd0), Low(x.Odd1));
        TPair.Step<TFormat>(ref part, w.Step3, High(x.Odd0), High(x.Odd1));
        x.LoadOdd(rows, bytes + (2 * InputBytes));
        Add<TFormat>(ref sums, part, w.Scales);
    }

    public static void Last<TFormat>(ref GemmOnce<TPair> sums, GemmUnits x, GemmChunk w)
        where TFormat : struct, ITiledFormat
    {
        TPair part = TFormat.HasRowScales ? default : sums.Sums;
        TPair.Step<TFormat>(ref part, w.Step0, Low(x.Even0), Low(x.Even1));
        TPair.Step<TFormat>(ref part, w.Step1, High(x.Even0), High(x.Even1));
        TPair.Step<TFormat>(ref part, w.Step2, Low(x.Odd0), Low(x.Odd1));
        TPair.Step<TFormat>(ref part, w.Step3, High(x.Odd0), High(x.Odd1));
        Add<TFormat>(ref sums, part, w.Scales);
    }

    private static void Add<TFormat>(ref GemmOnce<TPair> sums, TPair part, GemmScales scales)
        where TFormat : struct, ITiledFormat
    {
        if (TFormat.HasRowScales)
            TPair.Fold(ref sums.Sums, part, scales);
        else
            sums.Sums = part;
    }

    public static void Chunk<TFormat>(ref GemmOnce<TPair> sums, GemmUnitRows rows, int bytes, GemmChunk w)
        where TFormat : struct, ITiledFormat
    {
        GemmOnce<TPair> parts = TFormat.HasRowScales ? default : sums;
        HalfChunk<TFormat>(ref parts, rows, bytes, w, false);
        HalfChunk<TFormat>(ref parts, rows, bytes, w, true);
        Fold<TFormat>(ref sums, parts, w.Scales);
    }

    public static void HalfChunk<TFormat>(ref GemmOnce<TPair> parts, GemmUnitRows rows, int bytes, GemmChunk w, bool others)
        where TFormat : struct, ITiledFormat
    {
        GemmUnits x = default;
        if (!others)
        {
            x.LoadEven(rows, bytes);
            TPair.Step<TFormat>(ref parts.Sums, w.Step0, Low(x.Even0), Low(x.Even1));
            TPair.Step<TFormat>(ref parts.Sums, w.Step1, High(x.Even0), High(x.Even1));
            return;
        }
        x.LoadOdd(rows, bytes);
        TPair.Step<TFormat>(ref parts.Sums, w.Step2, Low(x.Odd0), Low(x.Odd1));
        TPair.Step<TFormat>(ref parts.Sums, w.Step3, High(x.Odd0), High(x.Odd1));
    }

    public static void Fold<TFormat>(ref GemmOnce<TPair> sums, GemmOnce<TPair> parts, GemmScales scales)
        where TFormat : struct, ITiledFormat => Add<TFormat>(ref sums, parts.Sums, scales);

    public static void Codes<TFormat>(ref GemmOnce<TPair> sums, Fp8Inputs x, int bytes, GemmChunk w)
        where TFormat : struct, ITiledFormat
    {
        TPair part = default;
        if (TFormat.Operands == TiledOperands.Fp8)
        {
            Step<TFormat>(ref part, x.Step0, bytes, w.Step0);
            Step<TFormat>(ref part, x.Step1, bytes, w.Step1);
            Step<TFormat>(ref part, x.Step2, bytes, w.Step2);
            Step<TFormat>(ref part, x.Step3, bytes, w.Step3);
        }
        else
        {
            U4 codes = LdMatrix.X4At(ref x.Step0[0], bytes);
            TPair.Step<TFormat>(ref part, w.Step0, TFormat.DecodeInput(codes.X), TFormat.DecodeInput(codes.Z));
            TPair.Step<TFormat>(ref part, w.Step1, TFormat.DecodeInput(codes.Y), TFormat.DecodeInput(codes.W));
            codes = LdMatrix.X4At(ref x.Step1[0], bytes);
            TPair.Step<TFormat>(ref part, w.Step2, TFormat.DecodeInput(codes.X), TFormat.DecodeInput(codes.Z));
            TPair.Step<TFormat>(ref part, w.Step3, TFormat.DecodeInput(codes.Y), TFormat.DecodeInput(codes.W));
        }
        TPair.FoldInputs(ref sums.Sums, part, Fp8Products.Scales(x, bytes, w.Scales.Upper0));
    }

    public static void Codes(ref GemmOnce<TPair> sums, Nvfp4Inputs x, int bytes, Nvfp4Weights w)
    {
        U4 first = Nvfp4Products.Scales(x, bytes), second = Nvfp4Products.Scales(x, bytes + InputBytes);
        Step(ref sums.Sums, x.Step0, bytes, w.Step0, Nvfp4Products.Join(w.Row0.X, w.Row1.X, first.X, second.X));
        Step(ref sums.Sums, x.Step1, bytes, w.Step1, Nvfp4Products.Join(w.Row0.Y, w.Row1.Y, first.Y, second.Y));
        Step(ref sums.Sums, x.Step2, bytes, w.Step2, Nvfp4Products.Join(w.Row0.Z, w.Row1.Z, first.Z, second.Z));
        Step(ref sums.Sums, x.Step3, bytes, w.Step3, Nvfp4Products.Join(w.Row0.W, w.Row1.W, first.W, second.W));
    }

    public static void Publish(GemmOnce<TPair> sums, ArrayView<uint> target, int bytes, int pitch) => TPair.Publish(sums.Sums, target, bytes, pitch);

    private static void Step<TFormat>(ref TPair sums, ArrayView<ushort> x, int bytes, GemmFragments w)
        where TFormat : struct, ITiledFormat
    {
        U4 inputs = LdMatrix.X4At(ref x[0], bytes);
        TPair.Step<TFormat>(ref sums, w, Low(inputs), High(inputs));
    }

    private static void Step(ref TPair sums, ArrayView<ushort> x, int bytes, GemmFragments w, GroupScales scales)
    {
        U4 inputs = LdMatrix.X4At(ref x[0], bytes);
        TPair.Step(ref sums, w, Low(inputs), High(inputs), scales);
    }

    private static U2 Low(U4 v)
    {
        U2 half;
        half.X = v.X;
        half.Y = v.Y;
        return half;
    }

    private static U2 High(U4 v)
    {
        U2 half;
        half.X = v.Z;
        half.Y = v.W;
        return half;
    }
}

/// <summary>Twice as many rows of x.</summary>
internal struct GemmTwice<T> : IGemmWarp<GemmTwice<T>>
    where T : struct, IGemmWarp<T>
{
    public T First, Second;

    public static int InputTiles => 2 * T.InputTiles;

    public static int WeightTiles => T.WeightTiles;

    public static void Step<TFormat>(ref GemmTwice<T> sums, GemmFragments x, GemmFragments w)
        where TFormat : struct, ITiledFormat
    {
        T.Step<TFormat>(ref sums.First, x, w);
        x.Row0 = T.InputTiles == 2 ? x.Row1 : x.Row2;
        x.Row1 = x.Row3;
        T.Step<TFormat>(ref sums.Second, x, w);
    }

    public static void AllButLast<TFormat>(ref GemmTwice<T> sums, ref GemmUnits x, GemmUnitRows rows, int bytes, GemmChunk w)
        where TFormat : struct, ITiledFormat
    {
        T.All<TFormat>(ref sums.First, ref x, rows, bytes, w);
        T.AllButLast<TFormat>(ref sums.Second, ref x, rows, bytes + (T.InputTiles * 8 * GemmCopies.RowBytes), w);
    }

    public static void All<TFormat>(ref GemmTwice<T> sums, ref GemmUnits x, GemmUnitRows rows, int bytes, GemmChunk w)
        where TFormat : struct, ITiledFormat
    {
        T.All<TFormat>(ref sums.First, ref x, rows, bytes, w);
        T.All<TFormat>(ref sums.Second, ref x, rows, bytes + (T.InputTiles * 8 * GemmCopies.RowBytes), w);
    }

    public static void Last<TFormat>(ref GemmTwice<T> sums, GemmUnits x, GemmChunk w)
        where TFormat : struct, ITiledFormat => T.Last<TFormat>(ref sums.Second, x, w);

    public static void Chunk<TFormat>(ref GemmTwice<T> sums, GemmUnitRows rows, int bytes, GemmChunk w)
        where TFormat : struct, ITiledFormat
    {
        T.Chunk<TFormat>(ref sums.First, rows, bytes, w);
        T.Chunk<TFormat>(ref sums.Second, rows, bytes + (T.InputTiles * 8 * GemmCopies.RowBytes), w);
    }

    public static void HalfChunk<TFormat>(ref GemmTwice<T> parts, GemmUnitRows rows, int bytes, GemmChunk w, bool others)
        where TFormat : struct, ITiledFormat
    {
        T.HalfChunk<TFormat>(ref parts.First, rows, bytes, w, others);
        T.HalfChunk<TFormat>(ref parts.Second, rows, bytes + (T.InputTiles * 8 * GemmCopies.RowBytes), w, others);
    }

    public static void Fold<TFormat>(ref GemmTwice<T> sums, GemmTwice<T> parts, GemmScales scales)
        where TFormat : struct, ITiledFormat
    {
        T.Fold<TFormat>(ref sums.First, parts.First, scales);
        T.Fold<TFormat>(ref sums.Second, parts.Second, scales);
    }

    public static void Codes<TFormat>(ref GemmTwice<T> sums, Fp8Inputs x, int bytes, GemmChunk w)
        where TFormat : struct, ITiledFormat
    {
        T.Codes<TFormat>(ref sums.First, x, bytes, w);
        T.Codes<TFormat>(ref sums.Second, x, bytes + (T.InputTiles * 8 * GemmCopies.RowBytes), w);
    }

    public static void Codes(ref GemmTwice<T> sums, Nvfp4Inputs x, int bytes, Nvfp4Weights w)
    {
        T.Codes(ref sums.First, x, bytes, w);
        T.Codes(ref sums.Second, x, bytes + (T.InputTiles * 8 * GemmCopies.RowBytes), w);
    }

    public static void Publish(GemmTwice<T> sums, ArrayView<uint> target, int bytes, int pitch)
    {
        T.Publish(sums.First, target, bytes, pitch);
        T.Publish(sums.Second, target, bytes + (T.InputTiles * 8 * pitch), pitch);
    }
}
