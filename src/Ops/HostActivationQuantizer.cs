using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;

namespace GpuKit.Ilgpu;

/// <summary>Quantising activations in host memory, with the kernels' arithmetic.</summary>
internal static class HostActivationQuantizer
{
    public static HostActivations Quantize<TFormat>(ReadOnlySpan<BFloat16> x, int m, int k, ActivationFormat format)
        where TFormat : struct, IActivationFormat
    {
        ActivationFormatInfo info = TFormat.Info;
        if (!info.HasNaN)
            RequireNumbers(x, k, info);
        int groups = info.Groups(k), groupSize = Math.Min(k, 1 << info.GroupShift), rowBytes = (int)info.RowBytes(k);
        var codes = new byte[checked(m * rowBytes)];
        var scales = new float[info.HasGroupScales ? m : checked(m * groups)];
        var groupScales = new byte[info.HasGroupScales ? checked(m * groups) : 0];
        for (int row = 0; row < m; row++)
        {
            ReadOnlySpan<BFloat16> values = x.Slice(row * k, k);
            if (info.HasGroupScales)
                scales[row] = TFormat.Scale(Largest(values));
            for (int group = 0; group < groups; group++)
            {
                int first = group * groupSize;
                ReadOnlySpan<BFloat16> part = values.Slice(first, Math.Min(groupSize, k - first));
                float scale;
                if (info.HasGroupScales)
                {
                    byte groupScale = groupScales[(row * groups) + group] = Nvfp4Code.GroupScale(Largest(part), scales[row]);
                    scale = scales[row] * Nvfp4.GroupScale(groupScale);
                }
                else
                {
                    scale = scales[(row * groups) + group] = TFormat.Scale(Largest(part));
                }
                for (int i = 0; i < part.Length; i++)
                    codes[(row * rowBytes) + ((first + i) >> TFormat.CodesPerByteShift)] |= (byte)(TFormat.Encode((float)part[i], scale) << (4 * (i & TFormat.CodesPerByteShift)));
            }
        }
        return new HostActivations(format, m, k, codes, scales) { GroupScales = groupScales };
    }

    private static void RequireNumbers(ReadOnlySpan<BFloat16> x, int k, in ActivationFormatInfo info)
    {
        for (int i = 0; i < x.Length; i++)
            if (BFloat16.IsNaN(x[i]))
                throw new ArgumentException($"The value at row {i / k}, column {i % k} is NaN, which {info.Name} does not have.", nameof(x));
    }

    private static float Largest(ReadOnlySpan<BFloat16> values)
    {
        float largest = 0;
        foreach (BFloat16 value in values)
            largest = MathF.Max(largest, Float32.FiniteMagnitude((float)value));
        return largest;
    }
}
