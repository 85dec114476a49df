using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// A row of weights or activations as a device holds it, and its values in double: the benchmark's own reading of the formats,
/// which shares nothing with the kernels that it checks.
/// </summary>
/// <param name="Format">Whose codes they are; activations have those of a weight format.</param>
/// <param name="Codes">Of the row.</param>
/// <param name="Scales">One a group, or the one above the groups' own in NVFP4.</param>
/// <param name="GroupScales">NVFP4: E4M3, one a group.</param>
/// <param name="ZeroPoints">INT4 with zero points: two a byte.</param>
/// <param name="GroupColumns">Columns of a group.</param>
internal sealed record StoredRow(WeightFormat Format, byte[] Codes, float[] Scales, byte[] GroupScales, byte[] ZeroPoints, int GroupColumns)
{
    private static readonly double[] E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6];

    /// <summary>Row <paramref name="row"/> of a matrix; of two-term FP8 one term.</summary>
    public static StoredRow Of(GpuStream stream, QuantizedMatrix w, int row, int term)
    {
        int groups = w.Block.ColumnBlocks(w.K), blockRow = row / w.Block.Rows;
        bool hasGroupScales = w.GroupScales.Length > 0;
        var stored = new StoredRow(
            w.Format,
            new byte[(int)w.Format.Info().RowBytes(w.K)],
            new float[hasGroupScales ? 1 : w.Scales.Length > 0 ? groups : 0],
            new byte[hasGroupScales ? groups : 0],
            new byte[w.ZeroPoints.Length > 0 ? (groups + 1) / 2 : 0],
            w.Block.Columns);
        w.Codes.CopyTo(stream, stored.Codes, (((long)term * w.N) + row) * stored.Codes.Length);
        w.Scales.CopyTo(stream, stored.Scales, hasGroupScales ? 0 : (((long)term * w.Block.RowBlocks(w.N)) + blockRow) * stored.Scales.Length);
        w.GroupScales.CopyTo(stream, stored.GroupScales, (long)row * stored.GroupScales.Length);
        w.ZeroPoints.CopyTo(stream, stored.ZeroPoints, (long)blockRow * stored.ZeroPoints.Length);
        return stored;
    }

    /// <summary>Row <paramref name="row"/> of quantised activations.</summary>
    public static StoredRow Of(GpuStream stream, QuantizedActivations x, int row)
    {
        (WeightFormat format, int columns) = x.Format switch
        {
            ActivationFormat.Fp8Group128 => (WeightFormat.Fp8Block, 128),
            ActivationFormat.Fp8Group32 => (WeightFormat.Fp8Block, 32),
            ActivationFormat.Nvfp4 => (WeightFormat.Nvfp4, 16),
            ActivationFormat.Int4 => (WeightFormat.Int4, x.K),
            _ => throw new NotSupportedException($"No check for {x.Format}."),
        };
        int groups = (x.K + columns - 1) / columns;
        bool hasGroupScales = format == WeightFormat.Nvfp4;
        var stored = new StoredRow(
            format,
            new byte[format == WeightFormat.Fp8Block ? x.K : (x.K + 1) / 2],
            new float[hasGroupScales ? 1 : groups],
            new byte[hasGroupScales ? groups : 0],
            [],
            columns);
        x.Codes.CopyTo(stream, stored.Codes, (long)row * stored.Codes.Length);
        x.Scales.CopyTo(stream, stored.Scales, (long)row * stored.Scales.Length);
        x.GroupScales.CopyTo(stream, stored.GroupScales, (long)row * stored.GroupScales.Length);
        return stored;
    }

    /// <summary>The first <paramref name="k"/> values.</summary>
    public double[] Decode(int k)
    {
        var values = new double[k];
        for (int c = 0; c < k; c++)
        {
            int group = c / GroupColumns;
            values[c] = Format switch
            {
                // BF16 is the upper half of a float32.
                WeightFormat.Bf16 => BitConverter.Int32BitsToSingle(MemoryMarshal.Cast<byte, ushort>(Codes.AsSpan())[c] << 16),
                WeightFormat.Fp8Block or WeightFormat.Fp8TwoTerm => E4M3(Codes[c]) * Scales[group],
                WeightFormat.Nvfp4 => E2M1[Nibble(Codes, c)] * E4M3(GroupScales[group]) * Scales[0],
                WeightFormat.Int4 => (Nibble(Codes, c) > 7 ? Nibble(Codes, c) - 16 : Nibble(Codes, c)) * (double)Scales[group],
                WeightFormat.Int4Zero => (Nibble(Codes, c) - Nibble(ZeroPoints, group)) * (double)Scales[group],
                _ => throw new NotSupportedException($"No check for {Format}."),
            };
        }
        return values;
    }

    private static int Nibble(byte[] bytes, int index) => (bytes[index / 2] >> (index % 2 * 4)) & 15;

    private static double E4M3(byte code)
    {
        int exponent = (code >> 3) & 15, fraction = code & 7;
        double magnitude = exponent == 0 ? fraction * Math.Pow(2, -9) : (1 + (fraction / 8.0)) * Math.Pow(2, exponent - 7);
        return code >= 128 ? -magnitude : magnitude;
    }
}
