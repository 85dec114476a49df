namespace GpuKit.Ilgpu.Models;

/// <summary>How fast bytes arrive, as an average that forgets within seconds: a disk and a file that is in memory already differ tenfold.</summary>
internal sealed class LoadRate(TimeProvider clock)
{
    private static readonly TimeSpan Memory = TimeSpan.FromSeconds(2), ShortestSample = TimeSpan.FromMilliseconds(50);

    private long sampledAt = clock.GetTimestamp();
    private long sampledBytes;

    /// <summary>Bytes a second; 0 until there is a first sample.</summary>
    public double BytesPerSecond { get; private set; }

    /// <summary>Takes note of all bytes that have arrived so far.</summary>
    public void Update(long bytes)
    {
        TimeSpan elapsed = clock.GetElapsedTime(sampledAt);
        if (elapsed < ShortestSample)
            return;
        double latest = (bytes - sampledBytes) / elapsed.TotalSeconds;
        BytesPerSecond = BytesPerSecond == 0 ? latest : BytesPerSecond + ((1 - Math.Exp(-elapsed / Memory)) * (latest - BytesPerSecond));
        (sampledAt, sampledBytes) = (clock.GetTimestamp(), bytes);
    }

    /// <summary>How long so many bytes will take; null while nobody can say.</summary>
    public TimeSpan? TimeFor(long bytes) => bytes == 0 ? TimeSpan.Zero : BytesPerSecond > 0 ? TimeSpan.FromSeconds(bytes / BytesPerSecond) : null;
}
