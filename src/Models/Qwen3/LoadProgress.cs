namespace GpuKit.Ilgpu.Models;

/// <summary>How far loading has come.</summary>
/// <param name="LoadedBytes">Bytes of tensors that are read; the last 48 MB of them may still be on their way to a card.</param>
/// <param name="TotalBytes">Bytes of all tensors of the checkpoint.</param>
/// <param name="Current">The tensor being loaded.</param>
public readonly record struct LoadProgress(long LoadedBytes, long TotalBytes, string Current)
{
    /// <summary>Bytes a second, averaged over the last seconds; 0 in the first moments.</summary>
    public double BytesPerSecond { get; init; }

    /// <summary>How long the rest will take at that speed; null in the first moments.</summary>
    public TimeSpan? TimeLeft { get; init; }
}

/// <summary>How a checkpoint is put on a device.</summary>
public sealed record LoadOptions
{
    /// <summary>Whether quantised weights are expanded to BF16 while loading: two to four times the memory, their values rounded to BF16.</summary>
    public bool DequantizeToBf16 { get; init; }

    /// <summary>Told after each tensor, of large ones after each part, on the loading thread; may be null.</summary>
    public IProgress<LoadProgress>? Progress { get; init; }

    /// <summary>Bytes of a matrix that are read at a time: bounds the span (2 GB) and the time to a cancellation.</summary>
    internal long BytesAtOnce { get; init; } = 64 << 20;

    /// <summary>Bytes of a staging buffer: 0 copies directly, null is what suits the device.</summary>
    internal int? StagingBytes { get; init; }
}
