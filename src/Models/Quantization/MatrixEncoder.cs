using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Models;

/// <summary>Turns a stored weight into another format, on a device or on the host; both give the same bits.</summary>
internal sealed class MatrixEncoder(GpuDevice? device)
{
    /// <summary>The whole matrix in a format.</summary>
    /// <exception cref="ModelFileException">A weight is not finite; it is named.</exception>
    public HostMatrix Encode(StoredMatrix source, CheckpointFormat format)
    {
        float[] values = Values(source);
        if (device is null)
            return Quantizer.Quantize(values, source.N, source.K, format.Format, format.Block);
        using var target = new QuantizedMatrix(device, format.Format, source.N, source.K, 1, format.Block);
        // BF16 weights cross the bus as they are: half the bytes, the same numbers.
        if (source.Format == WeightFormat.Bf16)
        {
            using DeviceBuffer<BFloat16> halves = device.Upload<BFloat16>(MemoryMarshal.Cast<byte, BFloat16>(source.Codes(0, source.N)));
            Quantizer.Quantize(device.DefaultStream, halves, target);
            return Download(device.DefaultStream, target);
        }
        using DeviceBuffer<float> floats = device.Upload<float>(values);
        Quantizer.Quantize(device.DefaultStream, floats, target);
        return Download(device.DefaultStream, target);
    }

    /// <summary>The numbers that a stored weight stands for.</summary>
    /// <exception cref="ModelFileException">One is not finite; it is named.</exception>
    public static float[] Values(StoredMatrix source)
    {
        float[] values;
        if (source.Format == WeightFormat.Bf16)
        {
            ReadOnlySpan<BFloat16> halves = MemoryMarshal.Cast<byte, BFloat16>(source.Codes(0, source.N));
            values = new float[halves.Length];
            for (int i = 0; i < values.Length; i++)
                values[i] = (float)halves[i];
        }
        else
        {
            values = Quantizer.Dequantize(source.Rows(0, source.N));
        }
        int bad = Array.FindIndex(values, v => !float.IsFinite(v));
        return bad < 0 ? values : throw new ModelFileException(Path.GetFileName(source.Checkpoint.Folder),
            $"'{source.Info.Name}': the weight at row {bad / source.K}, column {bad % source.K} is {values[bad]}; only finite weights are quantised");
    }

    /// <summary>A matrix as it lies on the device.</summary>
    public static HostMatrix Download(GpuStream stream, QuantizedMatrix matrix) =>
        new(matrix.Format, matrix.N, matrix.K, matrix.Codes.ToArray(stream), matrix.Scales.ToArray(stream), matrix.Block)
        {
            GroupScales = matrix.GroupScales.ToArray(stream),
            ZeroPoints = matrix.ZeroPoints.ToArray(stream),
        };
}
