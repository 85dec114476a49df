using GpuKit.Ilgpu.Kernels.Formats;

namespace GpuKit.Ilgpu;

/// <summary>
/// A weight matrix <c>[N, K]</c> on a device, row-major as checkpoints store it, or a stack of equally shaped ones (the
/// experts of a layer). Owns its codes, scales and zero points.
/// </summary>
public sealed class QuantizedMatrix : IDisposable
{
    // Kernels count along N and K in 32 bits, a tile or a few beyond the end.
    private const int MostExtent = 1 << 30;

    /// <summary>Allocates a matrix whose contents are written with <see cref="Write(int, int, HostMatrix, string)"/>.</summary>
    /// <param name="device">Device to hold it.</param>
    /// <param name="format">Storage format.</param>
    /// <param name="n">Output features (rows), 1 to 2³⁰.</param>
    /// <param name="k">Input features (columns), 1 to 2³⁰.</param>
    /// <param name="count">Matrices in the stack.</param>
    /// <param name="block">Scale block; when omitted 128 × 128 in FP8, 1 × 128 in INT4 (both). NVFP4 has its own.</param>
    /// <exception cref="ArgumentException">A size is out of range.</exception>
    /// <exception cref="GpuException">Device memory is exhausted.</exception>
    public QuantizedMatrix(GpuDevice device, WeightFormat format, int n, int k, int count = 1, ScaleBlock? block = null)
    {
        ArgumentNullException.ThrowIfNull(device);
        Shape.RequireRange(n, 1, MostExtent, nameof(n));
        Shape.RequireRange(k, 1, MostExtent, nameof(k));
        ArgumentOutOfRangeException.ThrowIfLessThan(count, 1);
        Format = format;
        N = n;
        K = k;
        Count = count;
        WeightFormatInfo info = format.Info();
        Block = format.BlockOr(block);
        BytesPerMatrix = info.Bytes(n, k);
        int scales = info.IsScaled ? checked(info.Terms * Block.RowBlocks(n) * Block.ColumnBlocks(k)) : 0;
        (ScalesPerMatrix, GroupScalesPerMatrix) = info.HasGroupScales ? (1, scales) : (scales, 0);
        ZeroBytesPerMatrix = info.HasZeroPoints ? checked((int)Block.ZeroPointBytes(n, k)) : 0;
        Codes = device.Allocate<byte>(checked(BytesPerMatrix * count));
        try
        {
            Scales = device.Allocate<float>((long)ScalesPerMatrix * count);
            GroupScales = device.Allocate<byte>((long)GroupScalesPerMatrix * count);
            ZeroPoints = device.Allocate<byte>((long)ZeroBytesPerMatrix * count);
        }
        catch
        {
            Codes.Dispose();
            Scales?.Dispose();
            GroupScales?.Dispose();
            throw;
        }
    }

    /// <summary>Storage format.</summary>
    public WeightFormat Format { get; }

    /// <summary>Output features: rows of one matrix.</summary>
    public int N { get; }

    /// <summary>Input features: columns of one matrix.</summary>
    public int K { get; }

    /// <summary>Matrices in the stack.</summary>
    public int Count { get; }

    /// <summary>Scale block of a scaled format: 1 × 16 in NVFP4.</summary>
    public ScaleBlock Block { get; }

    /// <summary>Bytes of codes, scales and zero points.</summary>
    public long Bytes => Codes.Bytes + Scales.Bytes + GroupScales.Bytes + ZeroPoints.Bytes;

    /// <summary>The device that holds the matrix.</summary>
    public GpuDevice Device => Codes.Device;

    internal DeviceBuffer<byte> Codes { get; }

    internal DeviceBuffer<float> Scales { get; }

    internal DeviceBuffer<byte> GroupScales { get; }

    internal DeviceBuffer<byte> ZeroPoints { get; }

    internal long BytesPerMatrix { get; }

    internal int ScalesPerMatrix { get; }

    internal int GroupScalesPerMatrix { get; }

    internal int ZeroBytesPerMatrix { get; }

    internal ScaleTable ScaleTable => new()
    {
        Blocks = Scales,
        Groups = GroupScales,
        ZeroPoints = ZeroPoints,
        RowShift = Block.RowShift,
        ColumnShift = Block.ColumnShift,
        Columns = Block.ColumnBlocks(K),
        PerSlab = Math.Max(ScalesPerMatrix / Format.Info().Terms, GroupScalesPerMatrix),
        ZeroBytesPerSlab = ZeroBytesPerMatrix,
    };

    /// <summary>Uploads one matrix with checked contents.</summary>
    /// <param name="device">Device to hold it.</param>
    /// <param name="host">Codes and scales as a quantiser or a checkpoint gives them.</param>
    /// <param name="name">Name for error messages, e.g. the tensor's.</param>
    /// <exception cref="ArgumentException">Sizes disagree, or a code or scale is NaN, or a group scale negative.</exception>
    public static QuantizedMatrix Upload(GpuDevice device, HostMatrix host, string name = "weights")
    {
        ArgumentNullException.ThrowIfNull(host);
        var matrix = new QuantizedMatrix(device, host.Format, host.N, host.K, 1, host.Block);
        try
        {
            matrix.Write(0, 0, host, name);
            return matrix;
        }
        catch
        {
            matrix.Dispose();
            throw;
        }
    }

    /// <summary>Writes rows of one matrix of the stack, on the device's default stream.</summary>
    /// <param name="matrix">Which matrix of the stack.</param>
    /// <param name="row">First row; a multiple of the block's rows in a scaled format.</param>
    /// <param name="rows">Rows <c>[rows, K]</c> in this matrix's format and block, ending on a block edge or at N. NVFP4: all N rows, since one multiplier is all rows'.</param>
    /// <param name="name">Name for error messages, e.g. the tensor's.</param>
    /// <exception cref="ArgumentException">A range, size, format or block is wrong, or a code or scale is NaN, or a group scale negative. Nothing is written then.</exception>
    public void Write(int matrix, int row, HostMatrix rows, string name = "weights")
    {
        ArgumentNullException.ThrowIfNull(rows);
        if (rows.Format != Format || rows.K != K || (Format.Info().IsScaled && Format.BlockOr(rows.Block) != Block))
            throw new ArgumentException($"{name}: {rows.Format.Info().Name} rows of {rows.K} with {rows.Block.Rows}×{rows.Block.Columns} blocks do not fit a {Format.Info().Name} matrix of {K} columns with {Block.Rows}×{Block.Columns} blocks.");
        Write(matrix, new MatrixRows { First = row, Count = rows.N, Codes = FirstTerm(rows.Codes), Residual = SecondTerm(rows.Codes), Scales = rows.Scales, GroupScales = rows.GroupScales, ZeroPoints = rows.ZeroPoints }, name);
    }

    /// <summary>Writes rows of one matrix of the stack, on the device's default stream; for formats without group scales and zero points.</summary>
    /// <param name="matrix">Which matrix of the stack.</param>
    /// <param name="row">First row; a multiple of the block's rows in a scaled format.</param>
    /// <param name="rows">Number of rows; ends on a block edge or at N.</param>
    /// <param name="codes"><c>[rows, K]</c> codes; two-term FP8 <c>[2, rows, K]</c>.</param>
    /// <param name="scales"><c>[⌈rows / block rows⌉, ⌈K / block columns⌉]</c> float32; two-term FP8 twice that; empty for an unscaled format.</param>
    /// <param name="name">Name for error messages, e.g. the tensor's.</param>
    /// <exception cref="ArgumentException">A range or size is wrong, or a code or scale is NaN, or a group scale negative. Nothing is written then.</exception>
    public void Write(int matrix, int row, int rows, ReadOnlySpan<byte> codes, ReadOnlySpan<float> scales, string name = "weights") =>
        Write(matrix, new MatrixRows { First = row, Count = rows, Codes = FirstTerm(codes), Residual = SecondTerm(codes), Scales = scales }, name);

    /// <summary>Writes rows of one matrix of the stack: at once on the default stream, or through staging, whose copies are awaited by who owns it.</summary>
    /// <exception cref="ArgumentException">A range or size is wrong, or a code or scale is NaN, or a group scale negative. Without staging nothing is written then.</exception>
    internal void Write(int matrix, in MatrixRows rows, string name, StagedUpload? staging = null)
    {
        if ((uint)matrix >= (uint)Count || rows.First < 0 || rows.Count < 0 || rows.First > N - rows.Count)
            throw new ArgumentException($"{name}: rows {rows.First}..{rows.First + rows.Count} of matrix {matrix} are outside {Count} matrices of [{N}, {K}].");
        MatrixContents.Check(this, rows, name);
        WeightFormatInfo info = Format.Info();
        long codes = (BytesPerMatrix * matrix) + (rows.First * info.RowBytes(K)), rowBlock = rows.First / Block.Rows;
        if (staging is null)
        {
            MatrixContents.Refuse(this, FindNaN(rows.Codes), name);
            MatrixContents.Refuse(this, FindNaN(rows.Residual), name);
        }
        MatrixContents.Refuse(this, Copy(staging, Codes, rows.Codes, codes, FindNaN), name);
        MatrixContents.Refuse(this, Copy(staging, Codes, rows.Residual, codes + (BytesPerMatrix / info.Terms * (info.Terms - 1)), FindNaN), name);
        WriteScales(rows.Scales, matrix, info, rowBlock, staging);
        Copy(staging, GroupScales, rows.GroupScales, (long)GroupScalesPerMatrix * matrix);
        Copy(staging, ZeroPoints, rows.ZeroPoints, ((long)ZeroBytesPerMatrix * matrix) + (info.HasZeroPoints ? rowBlock * ((Block.ColumnBlocks(K) + 1L) / 2) : 0));
    }

    // Each term's to its place in that term of the matrix. A multiplier of all rows has no place by row.
    private void WriteScales(ReadOnlySpan<float> scales, int matrix, WeightFormatInfo info, long rowBlock, StagedUpload? staging)
    {
        int part = scales.Length / info.Terms, perTerm = ScalesPerMatrix / info.Terms;
        long offset = info.IsScaled && !info.HasGroupScales ? rowBlock * Block.ColumnBlocks(K) : 0;
        for (int term = 0; term < info.Terms; term++)
            Copy(staging, Scales, scales.Slice(term * part, part), ((long)ScalesPerMatrix * matrix) + (perTerm * term) + offset);
    }

    private int Copy<T>(StagedUpload? staging, DeviceBuffer<T> target, ReadOnlySpan<T> source, long offset, FindBadByte? find = null)
        where T : unmanaged
    {
        if (staging is not null)
            return staging.Copy(target, source, offset, find);
        target.CopyFrom(Device.DefaultStream, source, offset);
        return -1;
    }

    private int FindNaN(ReadOnlySpan<byte> codes) => MatrixContents.FindNaN(Format, codes);

    private ReadOnlySpan<byte> FirstTerm(ReadOnlySpan<byte> codes) => codes[..(codes.Length / Format.Info().Terms)];

    private ReadOnlySpan<byte> SecondTerm(ReadOnlySpan<byte> codes) => codes[(codes.Length / Format.Info().Terms)..];

    /// <summary>Returns the memory to the device.</summary>
    public void Dispose()
    {
        Codes.Dispose();
        Scales.Dispose();
        GroupScales.Dispose();
        ZeroPoints.Dispose();
    }
}
