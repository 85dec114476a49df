namespace GpuKit.Ilgpu.Models;

/// <summary>A weight <c>[n, k]</c> as it lies in a checkpoint, with its scales read and checked.</summary>
internal sealed record StoredMatrix(Checkpoint Checkpoint, TensorInfo Info, int N, int K)
{
    public required WeightFormat Format { get; init; }

    /// <summary>The block of the scales; null where the format has none or its own.</summary>
    public required ScaleBlock? Block { get; init; }

    /// <summary>FP8 and INT4: the scales of all blocks. NVFP4: the multiplier of the matrix.</summary>
    public float[] Scales { get; init; } = [];

    /// <summary>NVFP4: the E4M3 scales of the groups.</summary>
    public byte[] GroupScales { get; init; } = [];

    /// <summary>The tensors that the scales came from.</summary>
    public IReadOnlyList<TensorInfo> ScaleTensors { get; init; } = [];

    /// <summary>How many rows to take at a time: whole scale blocks, about so many bytes; all where one scale is all rows'.</summary>
    public int RowsAtOnce(long bytes)
    {
        if (Format.HasGroupScales())
            return N;
        int unit = Format.IsScaled() ? Format.BlockOr(Block).Rows : 1;
        return (int)Math.Clamp(bytes / Format.RowBytes(K) / unit * unit, unit, int.MaxValue / 2);
    }

    /// <summary>The codes of some rows.</summary>
    public ReadOnlySpan<byte> Codes(int row, int count)
    {
        long rowBytes = Format.RowBytes(K);
        return Checkpoint.Bytes(Info.Name, row * rowBytes, checked((int)(count * rowBytes)));
    }

    /// <summary>The scales of some rows, which start on a block's edge.</summary>
    public ReadOnlySpan<float> ScalesOf(int row, int count)
    {
        if (Format.HasGroupScales() || !Format.IsScaled())
            return Scales;
        ScaleBlock block = Format.BlockOr(Block);
        int columns = block.ColumnBlocks(K);
        return Scales.AsSpan(row / block.Rows * columns, block.RowBlocks(count) * columns);
    }

    /// <summary>Some rows as a matrix of their own.</summary>
    public HostMatrix Rows(int row, int count) =>
        new(Format, count, K, Codes(row, count).ToArray(), ScalesOf(row, count).ToArray(), Format.BlockOr(Block)) { GroupScales = GroupScales };
}
