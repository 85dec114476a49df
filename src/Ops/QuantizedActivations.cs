using GpuKit.Ilgpu.Kernels.Formats;

namespace GpuKit.Ilgpu;

/// <summary>
/// Room for quantised activations <c>[rows, K]</c> on a device, row-major: a workspace that <see cref="ActivationQuantizer"/>
/// fills and <see cref="Linear"/> reads, as often as wanted and with up to <see cref="Rows"/> rows. Owns its memory; its contents are
/// undefined until quantised into.
/// </summary>
public sealed class QuantizedActivations : IDisposable
{
    // As for weights: kernels count rows and columns in 32 bits.
    private const int MostExtent = 1 << 30;

    /// <summary>Allocates room.</summary>
    /// <param name="device">Device to hold it.</param>
    /// <param name="format">Storage format.</param>
    /// <param name="rows">The most rows it takes, 1 to 2³⁰.</param>
    /// <param name="k">Columns, 1 to 2³⁰.</param>
    /// <exception cref="ArgumentException">A size is out of range.</exception>
    /// <exception cref="GpuException">Device memory is exhausted.</exception>
    public QuantizedActivations(GpuDevice device, ActivationFormat format, int rows, int k)
    {
        ArgumentNullException.ThrowIfNull(device);
        Shape.RequireRange(rows, 1, MostExtent, nameof(rows));
        Shape.RequireRange(k, 1, MostExtent, nameof(k));
        ActivationFormatInfo info = format.Info();
        Format = format;
        Rows = rows;
        K = k;
        Groups = info.Groups(k);
        Codes = device.Allocate<byte>(checked(rows * info.RowBytes(k)));
        try
        {
            Scales = device.Allocate<float>(info.HasGroupScales ? rows : (long)rows * Groups);
            GroupScales = device.Allocate<byte>(info.HasGroupScales ? (long)rows * Groups : 0);
        }
        catch
        {
            Codes.Dispose();
            Scales?.Dispose();
            throw;
        }
    }

    /// <summary>Storage format.</summary>
    public ActivationFormat Format { get; }

    /// <summary>The most rows it takes.</summary>
    public int Rows { get; }

    /// <summary>Columns.</summary>
    public int K { get; }

    /// <summary>Bytes of codes and scales.</summary>
    public long Bytes => Codes.Bytes + Scales.Bytes + GroupScales.Bytes;

    /// <summary>The device that holds it.</summary>
    public GpuDevice Device => Codes.Device;

    /// <summary>Groups of a row that have a scale of their own.</summary>
    internal int Groups { get; }

    internal DeviceBuffer<byte> Codes { get; }

    internal DeviceBuffer<float> Scales { get; }

    internal DeviceBuffer<byte> GroupScales { get; }

    /// <summary>The multipliers as those of a matrix whose scale blocks are one row high; with group scales, a row's own is the "matrix" scale.</summary>
    internal ScaleTable ScaleTable => new()
    {
        Blocks = Scales,
        Groups = GroupScales,
        RowShift = 0,
        ColumnShift = Format.Info().GroupShift,
        Columns = Groups,
    };

    /// <summary>Returns the memory to the device.</summary>
    public void Dispose()
    {
        Codes.Dispose();
        Scales.Dispose();
        GroupScales.Dispose();
    }
}
