using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu;

/// <summary>
/// A weight matrix <c>[N, K]</c> on a device, row-major as checkpoints store it, or a stack of equally shaped ones (the
/// experts of a layer). Owns its codes and scales.
/// </summary>
public sealed class QuantizedMatrix : IDisposable
{
    // Kernels count along N and K in 32 bits, a tile or a few beyond the end.
    private const int MostExtent = 1 << 30;

    /// <summary>Allocates a matrix whose contents are written with <see cref="Write"/>.</summary>
    /// <param name="device">Device to hold it.</param>
    /// <param name="format">Storage format.</param>
    /// <param name="n">Output features (rows), 1 to 2³⁰.</param>
    /// <param name="k">Input features (columns), 1 to 2³⁰.</param>
    /// <param name="count">Matrices in the stack.</param>
    /// <param name="block">Scale block of a scaled format; 128 × 128 when omitted.</param>
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
        Block = block ?? ScaleBlock.Square128;
        BytesPerMatrix = checked((long)n * k * format.Info().BitsPerCode / 8);
        ScalesPerMatrix = format.Info().IsScaled ? checked(Block.RowBlocks(n) * Block.ColumnBlocks(k)) : 0;
        Codes = device.Allocate<byte>(checked(BytesPerMatrix * count));
        try
        {
            Scales = device.Allocate<float>((long)ScalesPerMatrix * count);
        }
        catch
        {
            Codes.Dispose();
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

    /// <summary>Scale block of a scaled format.</summary>
    public ScaleBlock Block { get; }

    /// <summary>Bytes of codes and scales.</summary>
    public long Bytes => Codes.Bytes + Scales.Bytes;

    /// <summary>The device that holds the matrix.</summary>
    public GpuDevice Device => Codes.Device;

    internal DeviceBuffer<byte> Codes { get; }

    internal DeviceBuffer<float> Scales { get; }

    internal long BytesPerMatrix { get; }

    internal int ScalesPerMatrix { get; }

    /// <summary>Uploads one matrix with checked contents.</summary>
    /// <param name="device">Device to hold it.</param>
    /// <param name="host">Codes and scales as a quantiser or a checkpoint gives them.</param>
    /// <param name="name">Name for error messages, e.g. the tensor's.</param>
    /// <exception cref="ArgumentException">Sizes disagree, or a code or scale is NaN.</exception>
    public static QuantizedMatrix Upload(GpuDevice device, HostMatrix host, string name = "weights")
    {
        ArgumentNullException.ThrowIfNull(host);
        var matrix = new QuantizedMatrix(device, host.Format, host.N, host.K, 1, host.Block);
        try
        {
            matrix.Write(0, 0, host.N, host.Codes, host.Scales, name);
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
    /// <param name="rows">Number of rows; ends on a block edge or at N.</param>
    /// <param name="codes"><c>[rows, K]</c> codes.</param>
    /// <param name="scales"><c>[⌈rows / block rows⌉, ⌈K / block columns⌉]</c> float32; empty for an unscaled format.</param>
    /// <param name="name">Name for error messages, e.g. the tensor's.</param>
    /// <exception cref="ArgumentException">A range or size is wrong, or a code or scale is NaN. Nothing is written then.</exception>
    public void Write(int matrix, int row, int rows, ReadOnlySpan<byte> codes, ReadOnlySpan<float> scales, string name = "weights")
    {
        if ((uint)matrix >= (uint)Count || row < 0 || rows < 0 || row > N - rows)
            throw new ArgumentException($"{name}: rows {row}..{row + rows} of matrix {matrix} are outside {Count} matrices of [{N}, {K}].");
        long rowBytes = BytesPerMatrix / N;
        if (codes.Length != rows * rowBytes)
            throw new ArgumentException($"{name}: {codes.Length} bytes of codes for [{rows}, {K}] in {Format.Info().Name}, which needs {rows * rowBytes}.");
        int firstScale = 0;
        if (Format.Info().IsScaled)
        {
            if (row % Block.Rows != 0 || (rows % Block.Rows != 0 && row + rows != N))
                throw new ArgumentException($"{name}: rows {row}..{row + rows} do not lie on the edges of {Block.Rows}-row scale blocks.");
            firstScale = row / Block.Rows * Block.ColumnBlocks(K);
        }
        int needed = Format.Info().IsScaled ? Block.RowBlocks(rows) * Block.ColumnBlocks(K) : 0;
        if (scales.Length != needed)
            throw new ArgumentException($"{name}: {scales.Length} scales for [{rows}, {K}]; {Block.Rows}×{Block.Columns} blocks need [{Block.RowBlocks(rows)}, {Block.ColumnBlocks(K)}] = {needed}.");
        RejectNaN(codes, scales, name);
        Codes.CopyFrom(Device.DefaultStream, codes, (BytesPerMatrix * matrix) + (row * rowBytes));
        Scales.CopyFrom(Device.DefaultStream, scales, ((long)ScalesPerMatrix * matrix) + firstScale);
    }

    // A NaN weight makes every output NaN, and the bit-move decoder would even read it as a number: refused at the door.
    private void RejectNaN(ReadOnlySpan<byte> codes, ReadOnlySpan<float> scales, string name)
    {
        long bad = Format == WeightFormat.Fp8Block
            ? codes.IndexOfAny((byte)0x7F, (byte)0xFF)
            : IndexOfNaN(MemoryMarshal.Cast<byte, ushort>(codes));
        if (bad >= 0)
            throw new ArgumentException($"{name}: the weight at row {bad / K}, column {bad % K} is NaN.");
        for (int i = 0; i < scales.Length; i++)
            if (!float.IsFinite(scales[i]))
                throw new ArgumentException($"{name}: scale {i} is {scales[i]}; scales must be finite.");
    }

    private static int IndexOfNaN(ReadOnlySpan<ushort> bits)
    {
        for (int i = 0; i < bits.Length; i++)
            if ((bits[i] & 0x7FFF) > 0x7F80)
                return i;
        return -1;
    }

    /// <summary>Returns the memory to the device.</summary>
    public void Dispose()
    {
        Codes.Dispose();
        Scales.Dispose();
    }
}
