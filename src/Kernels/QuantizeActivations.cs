using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of the kernels that quantise activations.</summary>
internal struct QuantizeActivationsArgs
{
    /// <summary>[M, K] BF16 bits.</summary>
    public ArrayView<byte> X;

    /// <summary>[M, K] codes; rows start on whole bytes.</summary>
    public ArrayView<byte> Codes;

    /// <summary>[M, ⌈K / group⌉] multipliers, or [M] of whole rows.</summary>
    public ArrayView<float> Scales;

    /// <summary>[M, ⌈K / 16⌉] E4M3 multipliers of a format with group scales, else empty.</summary>
    public ArrayView<byte> GroupScales;

    public int M;
    public int K;

    /// <summary>Whether rows of X start on 16-byte boundaries; else 0.</summary>
    public int LoadsWords;

    /// <summary>Whether the codes of 16 columns can be stored as one word; else 0.</summary>
    public int StoresWords;
}

/// <summary>
/// Quantises rows with one scale a group: a block takes stretches of 1,024 columns, a thread 16 columns of one. The threads'
/// largest magnitudes meet in shared memory, each thread reads those of its group, and the codes follow from values that are
/// still in L1.
/// </summary>
internal static class QuantizeActivationGroups
{
    /// <summary>Threads a block, and units of 16 columns a stretch.</summary>
    public const int Threads = 64;

    public static void Run<TFormat>(QuantizeActivationsArgs a)
        where TFormat : struct, IActivationFormat
    {
        ArrayView<float> maxima = SharedMemory.Allocate<float>(Threads);
        int stretches = Stretches(a.K), groups = (int)(((long)a.K + (1L << TFormat.GroupShift) - 1) >> TFormat.GroupShift);
        int unitsInGroup = 1 << (TFormat.GroupShift - Unit16.ColumnShift);
        for (long item = Grid.IdxX; item < (long)a.M * stretches; item += Grid.DimX)
        {
            int row = (int)(item / stretches);
            int first = (int)(item - ((long)row * stretches)) * Threads * Unit16.Columns;
            for (int unit = Group.IdxX; unit < Threads; unit += Group.DimX)
            {
                int column = first + (unit << Unit16.ColumnShift);
                maxima[unit] = column < a.K ? ActivationUnit.Largest(ActivationUnit.Load(a, row, column)) : 0f;
            }
            // All units' maxima are there before anyone reads those of its group.
            Block.Barrier();
            for (int unit = Group.IdxX; unit < Threads; unit += Group.DimX)
            {
                int column = first + (unit << Unit16.ColumnShift);
                if (column < a.K)
                {
                    int start = unit & ~(unitsInGroup - 1);
                    float largest = 0;
                    for (int other = start; other < start + unitsInGroup; other++)
                        largest = IntrinsicMath.Max(largest, maxima[other]);
                    float scale = TFormat.Scale(largest);
                    if (unit == start)
                        a.Scales[((long)row * groups) + (column >> TFormat.GroupShift)] = scale;
                    ActivationUnit.Store<TFormat>(a, row, column, ActivationUnit.Load(a, row, column), scale);
                }
            }
            // They are read before the next stretch overwrites them.
            Block.Barrier();
        }
    }

    /// <summary>Stretches of a row.</summary>
    public static int Stretches(int k) => (int)(((long)k + (Threads * Unit16.Columns) - 1) / (Threads * Unit16.Columns));
}

/// <summary>Quantises rows with a scale of the whole row: a block a row, first its largest magnitude, then the codes.</summary>
internal static class QuantizeActivationRows
{
    public const int Threads = 256;

    public static void Run<TFormat>(QuantizeActivationsArgs a)
        where TFormat : struct, IActivationFormat
    {
        ArrayView<float> warpMaxima = SharedMemory.Allocate<float>(Threads);
        int groups = (int)(((long)a.K + Unit16.Columns - 1) >> Unit16.ColumnShift);
        for (int row = Grid.IdxX; row < a.M; row += Grid.DimX)
        {
            float largest = 0;
            for (int unit = Group.IdxX; unit < groups; unit += Group.DimX)
                largest = IntrinsicMath.Max(largest, ActivationUnit.Largest(ActivationUnit.Load(a, row, unit << Unit16.ColumnShift)));
            float rowScale = TFormat.Scale(QuantizeBlocks.BlockMax(warpMaxima, largest));
            if (Group.IdxX == 0)
                a.Scales[row] = rowScale;
            for (int unit = Group.IdxX; unit < groups; unit += Group.DimX)
            {
                Unit16 x = ActivationUnit.Load(a, row, unit << Unit16.ColumnShift);
                float scale = rowScale;
                if (TFormat.HasGroupScales)
                {
                    byte groupScale = Nvfp4Code.GroupScale(ActivationUnit.Largest(x), rowScale);
                    a.GroupScales[((long)row * groups) + unit] = groupScale;
                    scale = rowScale * Nvfp4.GroupScale(groupScale);
                }
                ActivationUnit.Store<TFormat>(a, row, unit << Unit16.ColumnShift, x, scale);
            }
        }
    }
}

/// <summary>Sixteen columns of a row, the work of one thread.</summary>
internal static class ActivationUnit
{
    /// <summary>The columns that exist, zeros beyond K: they raise no maximum and have code 0.</summary>
    public static Unit16 Load(QuantizeActivationsArgs a, int row, int column) =>
        Unit16.Load<Bf16Weights>(a.X, ((long)row * a.K) + column, IntrinsicMath.Min(Unit16.Columns, a.K - column), a.LoadsWords != 0, 0, default);

    /// <summary>The largest finite magnitude.</summary>
    public static float Largest(Unit16 x) => IntrinsicMath.Max(
        IntrinsicMath.Max(IntrinsicMath.Max(Largest(x.P0), Largest(x.P1)), IntrinsicMath.Max(Largest(x.P2), Largest(x.P3))),
        IntrinsicMath.Max(IntrinsicMath.Max(Largest(x.P4), Largest(x.P5)), IntrinsicMath.Max(Largest(x.P6), Largest(x.P7))));

    /// <summary>Encodes and writes what exists of a unit; the unused half of an odd row's last byte is 0.</summary>
    public static void Store<TFormat>(QuantizeActivationsArgs a, int row, int column, Unit16 x, float scale)
        where TFormat : struct, IActivationFormat
    {
        U4 words = default;
        words.X = Four<TFormat>(x.P0, x.P1, scale);
        words.Y = Four<TFormat>(x.P2, x.P3, scale);
        words.Z = Four<TFormat>(x.P4, x.P5, scale);
        words.W = Four<TFormat>(x.P6, x.P7, scale);
        if (TFormat.CodesPerByteShift == 1)
        {
            words.X |= words.Y << 16;
            words.Y = words.Z | (words.W << 16);
        }
        long rowBytes = ((long)a.K + (1 << TFormat.CodesPerByteShift) - 1) >> TFormat.CodesPerByteShift;
        long at = (row * rowBytes) + (column >> TFormat.CodesPerByteShift);
        if (a.StoresWords != 0)
        {
            StoreWords<TFormat>(a.Codes.Cast<uint>(), at >> 2, words);
            return;
        }
        int columns = IntrinsicMath.Min(Unit16.Columns, a.K - column);
        int bytes = (columns + (1 << TFormat.CodesPerByteShift) - 1) >> TFormat.CodesPerByteShift;
        for (int i = 0; i < bytes; i++)
        {
            uint word = i < 4 ? words.X : i < 8 ? words.Y : i < 12 ? words.Z : words.W;
            a.Codes[at + i] = (byte)((word >> (8 * (i & 3))) & 0xFF);
        }
    }

    private static void StoreWords<TFormat>(ArrayView<uint> codes, long at, U4 words)
        where TFormat : struct, IActivationFormat
    {
        if (TFormat.CodesPerByteShift == 0)
        {
            Mem.StoreGlobal(ref codes[at], words);
            return;
        }
        U2 half = default;
        half.X = words.X;
        half.Y = words.Y;
        Mem.StoreGlobal2(ref codes[at], half);
    }

    // Four codes, the first in the lowest bits.
    private static uint Four<TFormat>(uint x01, uint x23, float scale)
        where TFormat : struct, IActivationFormat
    {
        int bits = 8 >> TFormat.CodesPerByteShift;
        return TFormat.Encode(Bf16.Low(x01), scale) | (TFormat.Encode(Bf16.High(x01), scale) << bits)
            | (TFormat.Encode(Bf16.Low(x23), scale) << (2 * bits)) | (TFormat.Encode(Bf16.High(x23), scale) << (3 * bits));
    }

    private static float Largest(uint pair) =>
        IntrinsicMath.Max(Float32.FiniteMagnitude(Bf16.Low(pair)), Float32.FiniteMagnitude(Bf16.High(pair)));
}
