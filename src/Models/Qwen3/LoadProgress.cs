namespace GpuKit.Ilgpu.Models;

/// <summary>How far loading has come.</summary>
/// <param name="LoadedBytes">Bytes of tensors that are on the device.</param>
/// <param name="TotalBytes">Bytes of all tensors of the checkpoint.</param>
/// <param name="Current">The tensor or group being loaded.</param>
public readonly record struct LoadProgress(long LoadedBytes, long TotalBytes, string Current);

/// <summary>How a checkpoint is put on a device.</summary>
public sealed record LoadOptions
{
    /// <summary>Whether quantised weights are expanded to BF16 while loading: two to four times the memory, their values rounded to BF16.</summary>
    public bool DequantizeToBf16 { get; init; }

    /// <summary>Told after each group of tensors; may be null.</summary>
    public IProgress<LoadProgress>? Progress { get; init; }

    /// <summary>Bytes of a matrix that are read at a time: bounds the span (2 GB) and the time to a cancellation.</summary>
    internal long BytesAtOnce { get; init; } = 64 << 20;
}
