using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of <see cref="AccurateGemv"/>: two quantised matrices whose rows are multiplied with each other.</summary>
internal struct AccurateArgs
{
    /// <summary>[N, K] codes of W; rows start on whole bytes.</summary>
    public ArrayView<byte> Codes;

    /// <summary>The multipliers of W.</summary>
    public ScaleTable Scales;

    /// <summary>[M, K] codes of x; rows start on whole bytes.</summary>
    public ArrayView<byte> Inputs;

    /// <summary>The multipliers of x: of a row and a group of columns, or in a format with group scales one more a row.</summary>
    public ScaleTable InputScales;

    /// <summary>[M, YStride] BF16 or float32.</summary>
    public ArrayView<byte> Y;

    public int M;
    public int N;
    public int K;

    /// <summary>Elements between rows of Y.</summary>
    public int YStride;

    /// <summary>Whether sixteen columns of W and of x may be loaded in words; else 0.</summary>
    public int IsAligned;
}

/// <summary>
/// Dot products of quantised rows of x with rows of W, with a choice of accumulator: y[m, n] = Σ_k x[m, k] · W[n, k].
/// </summary>
/// <remarks>
/// x is read as a second matrix of a weight format, whose "matrix" scale is its row's. A worker (a warp, or a single thread where
/// warps are emulated) makes one dot product; lane l takes every Count-th unit of 16 columns, in which no scale changes.
/// <para>
/// Products of two codes are float32 numbers exactly: BF16 has 8 significant bits. In the accumulator's arithmetic they are added
/// over a unit, the unit's sum is multiplied by the scale of W and then that of x (weights' scales are the smaller ones: a product
/// that could overflow shrinks first), and units are added. Of four-bit codes on both sides a unit's sum is exact in plain float32
/// (whole multiples of ¼ below 2¹⁰), in NVFP4 even times both group scales (20 bits); INT4 sums go on as integers.
/// </para>
/// <para>
/// Whether words or elements are loaded changes no bit: units and order are the same. That is why it is a run-time flag here and
/// not a type argument, and the end of an odd row runs through the same code. The order depends on K and the lane count only, so a
/// row's bits depend neither on M nor on other rows.
/// </para>
/// </remarks>
internal static class AccurateGemv
{
    public static void Run<TFormat, TInput, TSum, TOutput, TLanes>(AccurateArgs a)
        where TFormat : struct, IWeightFormat
        where TInput : struct, IWeightFormat
        where TSum : struct, IAccumulator<TSum>
        where TOutput : struct, IOutput
        where TLanes : struct, ILanes
    {
        ArrayView<ushort> table = TFormat.PrepareTable(), inputTable = TInput.PrepareTable();
        int workersPerBlock = Group.DimX / TLanes.Count;
        long worker = ((long)Grid.IdxX * workersPerBlock) + (Group.IdxX / TLanes.Count);
        long workers = (long)Grid.DimX * workersPerBlock;
        for (long item = worker; item < (long)a.M * a.N; item += workers)
        {
            int n = (int)(item / a.M);
            int m = (int)(item - ((long)n * a.M));
            TSum sum = Dot<TFormat, TInput, TSum, TLanes>(a, m, n, table, inputTable);
            if (TLanes.Count > 1)
                sum = TSum.SumWarp(sum);
            if (TLanes.Index == 0)
                TOutput.Store(a.Y, ((long)m * a.YStride) + n, TSum.Finish(sum, RowScale<TFormat, TInput>(a.Scales, 0, n), RowScale<TInput, TFormat>(a.InputScales, m, m)));
        }
    }

    private static TSum Dot<TFormat, TInput, TSum, TLanes>(AccurateArgs a, int m, int n, ArrayView<ushort> table, ArrayView<ushort> inputTable)
        where TFormat : struct, IWeightFormat
        where TInput : struct, IWeightFormat
        where TSum : struct, IAccumulator<TSum>
        where TLanes : struct, ILanes
    {
        long row = (long)n * TFormat.RowCodes(a.K), input = (long)m * TInput.RowCodes(a.K);
        TSum sum = default;
        for (int k = TLanes.Index * Unit16.Columns; k < a.K; k += TLanes.Count * Unit16.Columns)
        {
            int columns = IntrinsicMath.Min(Unit16.Columns, a.K - k);
            Unit16 w = Unit16.Load<TFormat>(a.Codes, row + k, columns, a.IsAligned != 0, TFormat.Offset(a.Scales, 0, n, k), table);
            Unit16 x = Unit16.Load<TInput>(a.Inputs, input + k, columns, a.IsAligned != 0, TInput.Offset(a.InputScales, 0, m, k), inputTable);
            if (BothFourBits<TFormat, TInput>())
            {
                float scale = TFormat.HasGroupScales ? TFormat.Scale(a.Scales, 0, n, k) * TInput.Scale(a.InputScales, 0, m, k) : 1f;
                sum = TSum.AddProduct(sum, DotUnit<Float32Sum>(w, x).Sum, scale);
                continue;
            }
            sum = TSum.Add(sum, ScaledDot<TFormat, TInput, TSum>(a, w, x, 0, (m, n, k)));
            if (TFormat.Terms == 2)
            {
                Unit16 residual = Unit16.Load<TFormat>(a.Codes, row + k + ((long)a.N * TFormat.RowCodes(a.K)), columns, a.IsAligned != 0, TFormat.Offset(a.Scales, 1, n, k), table);
                sum = TSum.Add(sum, ScaledDot<TFormat, TInput, TSum>(a, residual, x, 1, (m, n, k)));
            }
        }
        return sum;
    }

    private static TSum ScaledDot<TFormat, TInput, TSum>(AccurateArgs a, Unit16 w, Unit16 x, int term, (int M, int N, int K) place)
        where TFormat : struct, IWeightFormat
        where TInput : struct, IWeightFormat
        where TSum : struct, IAccumulator<TSum>
    {
        TSum part = DotUnit<TSum>(w, x);
        if (TFormat.IsScaled)
            part = TSum.Scale(part, TFormat.Scale(a.Scales, term, place.N, place.K));
        if (TInput.IsScaled)
            part = TSum.Scale(part, TInput.Scale(a.InputScales, 0, place.M, place.K));
        return part;
    }

    private static TSum DotUnit<TSum>(Unit16 w, Unit16 x)
        where TSum : struct, IAccumulator<TSum>
    {
        TSum sum = AddPair<TSum>(default, w.P0, x.P0);
        sum = AddPair(sum, w.P1, x.P1);
        sum = AddPair(sum, w.P2, x.P2);
        sum = AddPair(sum, w.P3, x.P3);
        sum = AddPair(sum, w.P4, x.P4);
        sum = AddPair(sum, w.P5, x.P5);
        sum = AddPair(sum, w.P6, x.P6);
        return AddPair(sum, w.P7, x.P7);
    }

    private static TSum AddPair<TSum>(TSum sum, uint w, uint x)
        where TSum : struct, IAccumulator<TSum> =>
        TSum.AddProduct(TSum.AddProduct(sum, Bf16.Low(w), Bf16.Low(x)), Bf16.High(w), Bf16.High(x));

    // What multiplies a whole sum: the second level of NVFP4, and the one scale a row where both sides are INT4.
    private static float RowScale<TFormat, TOther>(ScaleTable scales, int slab, int row)
        where TFormat : struct, IWeightFormat
        where TOther : struct, IWeightFormat =>
        TFormat.HasGroupScales ? TFormat.MatrixScale(scales, slab) : BothFourBits<TFormat, TOther>() ? TFormat.Scale(scales, 0, row, 0) : 1f;

    private static bool BothFourBits<TFormat, TInput>()
        where TFormat : struct, IWeightFormat
        where TInput : struct, IWeightFormat => TFormat.CodesPerWordShift == 3 && TInput.CodesPerWordShift == 3;
}
