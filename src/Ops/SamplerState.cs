using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.TokenMarks;

namespace GpuKit.Ilgpu;

/// <summary>
/// What sampling keeps on the device between tokens of one sequence: which tokens were seen, how many were drawn, and a
/// workspace of one row. Not for use by two sequences or two streams at once.
/// </summary>
public sealed class SamplerState : IDisposable
{
    private const int Threads = 256;

    internal static readonly KernelDefinition<Kernel.Args> Mark = new(Kernel.Run, new KernelTraits(Threads));

    private readonly DeviceBuffer<byte> seen;
    private readonly DeviceBuffer<float> adjusted;
    private readonly DeviceBuffer<int> candidates;
    private readonly DeviceBuffer<long> counter;
    private readonly DeviceBuffer<ulong> best;

    /// <summary>Allocates a state with nothing seen and nothing drawn.</summary>
    /// <param name="device">Device that samples.</param>
    /// <param name="vocabulary">Length of a row of logits, 1 to 4,194,304.</param>
    /// <exception cref="ArgumentException">The vocabulary is out of range.</exception>
    /// <exception cref="GpuException">Memory is exhausted (<see cref="GpuFault.OutOfMemory"/>).</exception>
    public SamplerState(GpuDevice device, int vocabulary)
    {
        ArgumentNullException.ThrowIfNull(device);
        Shape.RequireRange(vocabulary, 1, Kernels.Sampler.MaxVocabulary, nameof(vocabulary));
        (Device, Vocabulary) = (device, vocabulary);
        seen = device.Allocate<byte>(vocabulary);
        try
        {
            adjusted = device.Allocate<float>(vocabulary);
            candidates = device.Allocate<int>(vocabulary);
            counter = device.Allocate<long>(1);
            best = device.Allocate<ulong>(1);
            Reset(device.DefaultStream);
            device.DefaultStream.Synchronize();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The device that samples.</summary>
    public GpuDevice Device { get; }

    /// <summary>Length of a row of logits.</summary>
    public int Vocabulary { get; }

    /// <summary>Device memory held.</summary>
    public long Bytes => seen.Bytes + adjusted.Bytes + candidates.Bytes + counter.Bytes + best.Bytes;

    internal ArrayView<byte> Seen => seen.View;

    internal ArrayView<float> Adjusted => adjusted.View;

    internal ArrayView<int> Candidates => candidates.View;

    internal ArrayView<long> Counter => counter.View;

    /// <summary>Zero between draws.</summary>
    internal ArrayView<ulong> Best => best.View;

    /// <summary>Forgets the seen tokens and restarts the random numbers, in the stream's order.</summary>
    public void Reset(GpuStream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        seen.Fill(stream, 0);
        counter.Fill(stream, 0);
        best.Fill(stream, 0);
    }

    /// <summary>Sets how many draws there were, in the stream's order: takes back those whose tokens nobody asked for.</summary>
    internal void SetDraws(GpuStream stream, long draws) => counter.CopyFrom(stream, [draws]);

    /// <summary>Marks tokens (a prompt's) as seen, in the stream's order; ids outside the vocabulary are ignored.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="tokens">Token ids on the device; none does nothing.</param>
    /// <exception cref="ArgumentException">The tokens live on another device.</exception>
    public void MarkSeen(GpuStream stream, ArrayView<int> tokens)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Shape.Require(stream, tokens, 1, tokens.Length, nameof(tokens));
        if (tokens.Length == 0)
            return;
        int threads = LaunchShape.Threads(Device, Threads);
        Device.Launch(Mark, stream, (LaunchShape.Blocks(Device, tokens.Length, threads), 1, 1), threads, 0, new Kernel.Args { Tokens = tokens, Seen = Seen });
    }

    /// <summary>Returns the memory. Work that uses it must have finished.</summary>
    public void Dispose()
    {
        seen.Dispose();
        adjusted?.Dispose();
        candidates?.Dispose();
        counter?.Dispose();
        best?.Dispose();
    }
}
