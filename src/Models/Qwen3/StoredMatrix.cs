namespace GpuKit.Ilgpu.Models;

/// <summary>A weight <c>[n, k]</c> as it lies in a checkpoint, with its scales and zero points read and checked.</summary>
internal sealed record StoredMatrix(Checkpoint Checkpoint, TensorInfo Info, int N, int K)
{
    public required WeightFormat Format { get; init; }

    /// <summary>The block of the scales; null where the format has none or its own.</summary>
    public required ScaleBlock? Block { get; init; }

    /// <summary>FP8 and INT4: the scales of all blocks, in two-term FP8 the residual's after all others. NVFP4: the multiplier of the matrix.</summary>
    public float[] Scales { get; init; } = [];

    /// <summary>NVFP4: the E4M3 scales of the groups.</summary>
    public byte[] GroupScales { get; init; } = [];

    /// <summary>INT4 with zero points: those of all groups, two a byte.</summary>
    public byte[] ZeroPoints { get; init; } = [];

    /// <summary>Two-term FP8: the tensor of the residual's codes.</summary>
    public TensorInfo? Residual { get; init; }

    /// <summary>The tensors that belong to the weight's: scales, zero points, residual.</summary>
    public IReadOnlyList<TensorInfo> Companions { get; init; } = [];

    /// <summary>How many rows to take at a time: whole scale blocks, about so many bytes; all where one scale is all rows'.</summary>
    public int RowsAtOnce(long bytes)
    {
        if (Format.HasGroupScales())
            return N;
        int unit = Format.IsScaled() ? Format.BlockOr(Block).Rows : 1;
        return (int)Math.Clamp(bytes / (Format.Terms() * Format.RowBytes(K)) / unit * unit, unit, int.MaxValue / 2);
    }

    /// <summary>The codes of some rows, in two-term FP8 those of the first term: the file's own bytes.</summary>
    public ReadOnlySpan<byte> Codes(int row, int count) => CodesOf(Info, row, count);

    /// <summary>Two-term FP8: the residual's codes of some rows, the file's own bytes.</summary>
    public ReadOnlySpan<byte> ResidualCodes(int row, int count) => Residual is null ? [] : CodesOf(Residual, row, count);

    /// <summary>The scales of some rows, which start on a block's edge.</summary>
    public ReadOnlySpan<float> ScalesOf(int row, int count)
    {
        if (Format.HasGroupScales() || !Format.IsScaled())
            return Scales;
        ScaleBlock block = Format.BlockOr(Block);
        int columns = block.ColumnBlocks(K), first = row / block.Rows * columns, length = block.RowBlocks(count) * columns;
        ReadOnlySpan<float> scales = Scales.AsSpan(first, length);
        return Residual is null ? scales : (float[])[.. scales, .. Scales.AsSpan((Scales.Length / 2) + first, length)];
    }

    /// <summary>The zero points of some rows, which start on a block's edge.</summary>
    public ReadOnlySpan<byte> ZeroPointsOf(int row, int count)
    {
        ScaleBlock block = Format.BlockOr(Block);
        return ZeroPoints.Length == 0 ? [] : ZeroPoints.AsSpan((int)block.ZeroPointBytes(row, K), (int)block.ZeroPointBytes(count, K));
    }

    /// <summary>Some rows as a matrix of their own.</summary>
    public HostMatrix Rows(int row, int count) =>
        new(Format, count, K, [.. Codes(row, count), .. ResidualCodes(row, count)], ScalesOf(row, count).ToArray(), Format.BlockOr(Block))
        {
            GroupScales = GroupScales,
            ZeroPoints = ZeroPointsOf(row, count).ToArray(),
        };

    private ReadOnlySpan<byte> CodesOf(TensorInfo tensor, int row, int count) =>
        Checkpoint.Bytes(tensor.Name, row * Format.RowBytes(K), checked((int)(count * Format.RowBytes(K))));
}
