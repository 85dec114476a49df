namespace GpuKit.Ilgpu.Models;

/// <summary>How far writing a checkpoint has come.</summary>
/// <param name="Tensors">Tensors of the source that are done.</param>
/// <param name="TotalTensors">All of them that are written, converted or not.</param>
/// <param name="Bytes">Bytes written.</param>
/// <param name="TotalBytes">Bytes that will be written.</param>
public readonly record struct QuantizeProgress(int Tensors, int TotalTensors, long Bytes, long TotalBytes);

/// <summary>How a checkpoint is written in another format.</summary>
public sealed record QuantizeOptions
{
    /// <summary>Where to quantise; null is the host. The bits are the same.</summary>
    public GpuDevice? Device { get; init; }

    /// <summary>Whether a target folder that holds something is replaced.</summary>
    public bool Force { get; init; }

    /// <summary>Told after each tensor; may be null.</summary>
    public IProgress<QuantizeProgress>? Progress { get; init; }

    /// <summary>The most bytes of tensors in one file, unless one tensor alone has more.</summary>
    internal long ShardBytes { get; init; } = 5_000_000_000;

    /// <summary>Free bytes of the disk that a folder is on.</summary>
    internal Func<string, long> FreeBytes { get; init; } = folder => new DriveInfo(folder).AvailableFreeSpace;
}

/// <summary>What was written.</summary>
/// <param name="Folder">The folder, in full.</param>
/// <param name="Tensors">Tensors of the source that were written, converted or not.</param>
/// <param name="Converted">Those of them whose format changed.</param>
/// <param name="SourceBytes">Bytes of all tensors of the source.</param>
/// <param name="Bytes">Bytes of all tensors written.</param>
/// <param name="Shards">Files of weights.</param>
/// <param name="IsSecondQuantization">Whether weights were quantised that had been quantised before.</param>
public sealed record QuantizeReport(string Folder, int Tensors, int Converted, long SourceBytes, long Bytes, int Shards, bool IsSecondQuantization);
