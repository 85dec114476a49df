using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu;

/// <summary>Quantising and dequantising in host memory, with the kernels' arithmetic.</summary>
internal static class HostQuantizer
{
    private const int GroupSize = 16;

    public static HostMatrix Quantize(ReadOnlySpan<float> values, int n, int k, WeightFormat format, ScaleBlock block) => format switch
    {
        WeightFormat.Bf16 => ToBf16(values, n, k, block),
        WeightFormat.Fp8Block => ToBlocks<Fp8Code>(values, n, k, format, block),
        WeightFormat.Nvfp4 => ToNvfp4(RequireNumbers(values, k, format), n, k),
        WeightFormat.Int4 => ToBlocks<Int4Code>(RequireNumbers(values, k, format), n, k, format, block),
        WeightFormat.Int4Zero => ToInt4Zero(RequireNumbers(values, k, format), n, k, block),
        WeightFormat.Fp8TwoTerm => ToTwoTerm(values, n, k, block),
        _ => throw new ArgumentOutOfRangeException(nameof(format), format, "Not a weight format."),
    };

    public static float[] Dequantize(HostMatrix matrix)
    {
        WeightFormatInfo info = matrix.Format.Info();
        ScaleBlock block = matrix.Format.BlockOr(matrix.Block);
        var values = new float[checked(matrix.N * matrix.K)];
        long rowBytes = info.RowBytes(matrix.K);
        if (matrix.Codes.Length != info.Bytes(matrix.N, matrix.K))
            throw new ArgumentException($"{matrix.Codes.Length} bytes of codes do not fit [{matrix.N}, {matrix.K}] in {info.Name}.", nameof(matrix));
        int scales = info.IsScaled ? info.Terms * block.RowBlocks(matrix.N) * block.ColumnBlocks(matrix.K) : 0;
        (int expected, int groups) = info.HasGroupScales ? (1, scales) : (scales, 0);
        if (matrix.Scales.Length != expected || matrix.GroupScales.Length != groups)
            throw new ArgumentException($"{matrix.Scales.Length} scales and {matrix.GroupScales.Length} group scales do not fit [{matrix.N}, {matrix.K}] in {info.Name}, which needs {expected} and {groups}.", nameof(matrix));
        long zeros = info.HasZeroPoints ? block.ZeroPointBytes(matrix.N, matrix.K) : 0;
        if (matrix.ZeroPoints.Length != zeros)
            throw new ArgumentException($"{matrix.ZeroPoints.Length} bytes of zero points do not fit [{matrix.N}, {matrix.K}] in {info.Name}, which needs {zeros}.", nameof(matrix));
        ReadOnlySpan<ushort> halves = MemoryMarshal.Cast<byte, ushort>(matrix.Codes);
        int columnBlocks = block.ColumnBlocks(matrix.K);
        for (int n = 0, i = 0; n < matrix.N; n++)
        {
            for (int k = 0; k < matrix.K; k++, i++)
            {
                int scale = (n / block.Rows * columnBlocks) + (k / block.Columns);
                uint nibble = info.BitsPerCode == 4 ? (uint)matrix.Codes[(n * rowBytes) + (k >> 1)] >> (4 * (k & 1)) : 0;
                values[i] = matrix.Format switch
                {
                    WeightFormat.Bf16 => Bf16.ToFloat(halves[i]),
                    WeightFormat.Fp8Block => E4M3(matrix.Codes[i]) * matrix.Scales[scale],
                    WeightFormat.Fp8TwoTerm => Fast.Fma(E4M3(matrix.Codes[values.Length + i]), matrix.Scales[(scales / 2) + scale], E4M3(matrix.Codes[i]) * matrix.Scales[scale]),
                    // Exact before the matrix's scale.
                    WeightFormat.Nvfp4 => Bf16.ToFloat(Nvfp4.DecodeCode(nibble)) * Nvfp4.GroupScale(matrix.GroupScales[scale]) * matrix.Scales[0],
                    WeightFormat.Int4Zero => Bf16.ToFloat(Int4Zero.DecodeCode(nibble, ZeroPoint(matrix.ZeroPoints, n / block.Rows, k / block.Columns, columnBlocks))) * matrix.Scales[scale],
                    _ => Bf16.ToFloat(Int4.DecodeCode(nibble)) * matrix.Scales[scale],
                };
            }
        }
        return values;
    }

    private static float E4M3(byte code) => Bf16.ToFloat((ushort)Fp8Hardware.ToBf16Pair(Cvt.E4M3x2LowToF16x2Software(code)));

    private static uint ZeroPoint(byte[] zeros, int rowBlock, int columnBlock, int columnBlocks) =>
        ((uint)zeros[(rowBlock * ((columnBlocks + 1) / 2)) + (columnBlock / 2)] >> (4 * (columnBlock & 1))) & 15;

    private static ReadOnlySpan<float> RequireNumbers(ReadOnlySpan<float> values, int k, WeightFormat format)
    {
        for (int i = 0; i < values.Length; i++)
            if (float.IsNaN(values[i]))
                throw new ArgumentException($"The value at row {i / k}, column {i % k} is NaN, which {format.Info().Name} does not have.", nameof(values));
        return values;
    }

    private static HostMatrix ToBf16(ReadOnlySpan<float> values, int n, int k, ScaleBlock block)
    {
        var codes = new byte[2 * values.Length];
        Span<ushort> halves = MemoryMarshal.Cast<byte, ushort>(codes.AsSpan());
        for (int i = 0; i < values.Length; i++)
            halves[i] = Bf16.FromFloat(values[i]);
        return new HostMatrix(WeightFormat.Bf16, n, k, codes, [], block);
    }

    private static HostMatrix ToBlocks<TCode>(ReadOnlySpan<float> values, int n, int k, WeightFormat format, ScaleBlock block)
        where TCode : struct, IBlockCode
    {
        int rowBytes = (int)format.Info().RowBytes(k);
        var codes = new byte[checked(n * rowBytes)];
        int columnBlocks = block.ColumnBlocks(k);
        var scales = new float[block.RowBlocks(n) * columnBlocks];
        for (int row = 0; row < n; row++)
        {
            for (int column = 0; column < k; column++)
            {
                ref float largest = ref scales[(row / block.Rows * columnBlocks) + (column / block.Columns)];
                largest = MathF.Max(largest, Float32.FiniteMagnitude(values[(row * k) + column]));
            }
        }
        for (int i = 0; i < scales.Length; i++)
            scales[i] = TCode.Scale(scales[i]);
        for (int row = 0; row < n; row++)
        {
            for (int column = 0; column < k; column++)
            {
                int code = TCode.Encode(values[(row * k) + column], scales[(row / block.Rows * columnBlocks) + (column / block.Columns)]);
                codes[(row * rowBytes) + (column >> TCode.CodesPerByteShift)] |= (byte)(code << (4 * (column & TCode.CodesPerByteShift)));
            }
        }
        return new HostMatrix(format, n, k, codes, scales, block);
    }

    private static HostMatrix ToTwoTerm(ReadOnlySpan<float> values, int n, int k, ScaleBlock block)
    {
        HostMatrix first = ToBlocks<Fp8Code>(values, n, k, WeightFormat.Fp8Block, block);
        var residuals = new float[values.Length];
        for (int row = 0, i = 0; row < n; row++)
            for (int column = 0; column < k; column++, i++)
                residuals[i] = Fp8Code.Residual(values[i], first.Scales[(row / block.Rows * block.ColumnBlocks(k)) + (column / block.Columns)]);
        HostMatrix second = ToBlocks<Fp8Code>(residuals, n, k, WeightFormat.Fp8Block, block);
        return new HostMatrix(WeightFormat.Fp8TwoTerm, n, k, [.. first.Codes, .. second.Codes], [.. first.Scales, .. second.Scales], block);
    }

    private static HostMatrix ToInt4Zero(ReadOnlySpan<float> values, int n, int k, ScaleBlock block)
    {
        int rowBytes = (int)WeightFormat.Int4Zero.Info().RowBytes(k), columnBlocks = block.ColumnBlocks(k);
        var codes = new byte[checked(n * rowBytes)];
        var zeroPoints = new byte[block.ZeroPointBytes(n, k)];
        int blocks = block.RowBlocks(n) * columnBlocks;
        float[] scales = new float[blocks], above = new float[blocks], below = new float[blocks];
        for (int row = 0, i = 0; row < n; row++)
        {
            for (int column = 0; column < k; column++, i++)
            {
                int index = (row / block.Rows * columnBlocks) + (column / block.Columns);
                above[index] = MathF.Max(above[index], Int4ZeroCode.Above(values[i]));
                below[index] = MathF.Max(below[index], Int4ZeroCode.Above(-values[i]));
            }
        }
        for (int i = 0; i < blocks; i++)
        {
            scales[i] = Int4ZeroCode.Scale(above[i], below[i]);
            int column = i % columnBlocks;
            zeroPoints[(i / columnBlocks * ((columnBlocks + 1) / 2)) + (column / 2)] |= (byte)(Int4ZeroCode.Zero(below[i], scales[i]) << (4 * (column & 1)));
        }
        for (int row = 0, i = 0; row < n; row++)
        {
            for (int column = 0; column < k; column++, i++)
            {
                int rowBlock = row / block.Rows, columnBlock = column / block.Columns;
                int zero = (int)ZeroPoint(zeroPoints, rowBlock, columnBlock, columnBlocks);
                uint code = Int4ZeroCode.Encode(values[i], scales[(rowBlock * columnBlocks) + columnBlock], zero);
                codes[(row * rowBytes) + (column >> 1)] |= (byte)(code << (4 * (column & 1)));
            }
        }
        return new HostMatrix(WeightFormat.Int4Zero, n, k, codes, scales, block) { ZeroPoints = zeroPoints };
    }

    private static HostMatrix ToNvfp4(ReadOnlySpan<float> values, int n, int k)
    {
        int groups = ScaleBlock.Group16.ColumnBlocks(k), rowBytes = (int)WeightFormat.Nvfp4.Info().RowBytes(k);
        var codes = new byte[checked(n * rowBytes)];
        var groupScales = new byte[checked(n * groups)];
        float matrixScale = Nvfp4Code.MatrixScale(Largest(values));
        for (int row = 0; row < n; row++)
        {
            for (int first = 0; first < k; first += GroupSize)
            {
                ReadOnlySpan<float> group = values.Slice((row * k) + first, Math.Min(GroupSize, k - first));
                byte groupScale = Nvfp4Code.GroupScale(Largest(group), matrixScale);
                groupScales[(row * groups) + (first / GroupSize)] = groupScale;
                float scale = matrixScale * Nvfp4.GroupScale(groupScale);
                for (int i = 0; i < group.Length; i++)
                    codes[(row * rowBytes) + ((first + i) / 2)] |= (byte)(Nvfp4Code.Encode(group[i], scale) << (4 * (i & 1)));
            }
        }
        return new HostMatrix(WeightFormat.Nvfp4, n, k, codes, [matrixScale], ScaleBlock.Group16) { GroupScales = groupScales };
    }

    private static float Largest(ReadOnlySpan<float> values)
    {
        float largest = 0;
        foreach (float value in values)
            largest = MathF.Max(largest, Float32.FiniteMagnitude(value));
        return largest;
    }
}
