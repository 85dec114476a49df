using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Models;

/// <summary>Turns a stored weight into another format, on a device or on the host; both give the same bits.</summary>
internal sealed class MatrixEncoder(GpuDevice? device)
{
    /// <summary>The whole matrix in a format.</summary>
    /// <exception cref="ModelFileException">A weight is not finite; it is named.</exception>
    public HostMatrix Encode(StoredMatrix source, CheckpointFormat format)
    {
        HostMatrix stored = source.Rows(0, source.N);
        float[] values = Quantizer.Dequantize(stored);
        int bad = Array.FindIndex(values, v => !float.IsFinite(v));
        if (bad >= 0)
            throw new ModelFileException(Path.GetFileName(source.Checkpoint.Folder),
                $"'{source.Info.Name}': the weight at row {bad / source.K}, column {bad % source.K} is {values[bad]}; only finite weights are quantised");
        if (device is null)
            return Quantizer.Quantize(values, source.N, source.K, format.Format, format.Block);
        using var target = new QuantizedMatrix(device, format.Format, source.N, source.K, 1, format.Block);
        // BF16 weights cross the bus as they are: half the bytes, the same numbers.
        if (stored.Format == WeightFormat.Bf16)
        {
            using DeviceBuffer<BFloat16> halves = device.Upload<BFloat16>(MemoryMarshal.Cast<byte, BFloat16>(stored.Codes));
            Quantizer.Quantize(device.DefaultStream, halves, target);
            return Download(device.DefaultStream, target);
        }
        using DeviceBuffer<float> floats = device.Upload<float>(values);
        Quantizer.Quantize(device.DefaultStream, floats, target);
        return Download(device.DefaultStream, target);
    }

    private static HostMatrix Download(GpuStream stream, QuantizedMatrix matrix) =>
        new(matrix.Format, matrix.N, matrix.K, matrix.Codes.ToArray(stream), matrix.Scales.ToArray(stream), matrix.Block) { GroupScales = matrix.GroupScales.ToArray(stream) };
}
