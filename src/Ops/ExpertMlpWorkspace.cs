using GpuKit.Ilgpu.Kernels;

namespace GpuKit.Ilgpu;

/// <summary>Sizes that an <see cref="ExpertMlpWorkspace"/> is made for.</summary>
/// <param name="Tokens">Most tokens of a call, 1 to <see cref="ExpertMlp.MostTokens"/>.</param>
/// <param name="TopK">Most experts a token, 1 to 32.</param>
/// <param name="Experts">Matrices of a stack, 1 to 512.</param>
/// <param name="Hidden">Columns of the residual stream.</param>
/// <param name="Width">Columns of an expert's down matrix.</param>
public readonly record struct ExpertMlpSize(int Tokens, int TopK, int Experts, int Hidden, int Width);

/// <summary>What <see cref="ExpertMlp.Apply"/> keeps between its launches: who was chosen, and each pair's activations and output. Of one call at a time.</summary>
public sealed class ExpertMlpWorkspace : IDisposable
{
    internal const int MostExperts = Kernels.ExpertList.MostExperts;

    private readonly List<IDisposable> owned = [];

    /// <summary>Allocates for calls of at most these sizes.</summary>
    /// <param name="device">Where the calls run.</param>
    /// <param name="size">The largest sizes.</param>
    /// <exception cref="ArgumentOutOfRangeException">A size is out of range.</exception>
    /// <exception cref="GpuException">Device memory is exhausted; nothing stays allocated.</exception>
    public ExpertMlpWorkspace(GpuDevice device, ExpertMlpSize size)
    {
        ArgumentNullException.ThrowIfNull(device);
        Shape.RequireRange(size.Tokens, 1, ExpertMlp.MostTokens, nameof(size.Tokens));
        Shape.RequireRange(size.TopK, 1, Kernels.Router.MaxTopK, nameof(size.TopK));
        Shape.RequireRange(size.Experts, 1, MostExperts, nameof(size.Experts));
        Shape.RequirePositive(size.Hidden, nameof(size.Hidden));
        Shape.RequirePositive(size.Width, nameof(size.Width));
        (Device, Size) = (device, size);
        long pairs = (long)size.Tokens * size.TopK, ranks = Math.Min(pairs, size.Experts);
        try
        {
            Activated = Own(device.Allocate<BFloat16>(pairs * size.Width));
            Outputs = Own(device.Allocate<float>(pairs * size.Hidden));
            Heads = Own(device.Allocate<int>(2 * ranks));
            Members = Own(device.Allocate<int>(ranks * size.Tokens));
            // Places behind an expert's last token are read, though nobody looks at what is there.
            Members.Fill(device.DefaultStream, 0);
            Heads.Fill(device.DefaultStream, 0);
            device.DefaultStream.Synchronize();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Where the memory lies.</summary>
    public GpuDevice Device { get; }

    /// <summary>The largest sizes of a call.</summary>
    public ExpertMlpSize Size { get; }

    /// <summary>[pairs, width].</summary>
    internal DeviceBuffer<BFloat16> Activated { get; }

    /// <summary>[pairs, hidden].</summary>
    internal DeviceBuffer<float> Outputs { get; }

    /// <summary>[ranks, 2] of the list.</summary>
    internal DeviceBuffer<int> Heads { get; }

    /// <summary>[ranks, tokens] of the list.</summary>
    internal DeviceBuffer<int> Members { get; }

    /// <summary>Returns the memory.</summary>
    public void Dispose()
    {
        foreach (IDisposable buffer in owned)
            buffer.Dispose();
        owned.Clear();
    }

    /// <summary>The list of a call.</summary>
    internal ExpertListing List(int tokens, int topK, int experts)
    {
        ObjectDisposedException.ThrowIf(owned.Count == 0, this);
        if (tokens > Size.Tokens || topK > Size.TopK || experts > Size.Experts)
            throw new ArgumentException($"A workspace for {Size.Tokens} tokens of {Size.TopK} among {Size.Experts} experts does not hold {tokens} of {topK} among {experts}.");
        int ranks = Math.Min(tokens * topK, experts);
        return new ExpertListing { Heads = Heads.View.SubView(0, 2L * ranks), Members = Members.View.SubView(0, (long)ranks * tokens), Ranks = ranks, Tokens = tokens };
    }

    private T Own<T>(T buffer)
        where T : IDisposable
    {
        owned.Add(buffer);
        return buffer;
    }
}
