using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.GreedyRows;

namespace GpuKit.Ilgpu;

/// <summary>The largest logit of some of several rows: <see cref="Sampler"/> at temperature 0 without a penalty, for all sequences of a batch in two launches.</summary>
internal static class GreedyRows
{
    // As in Sampler.
    private const int MostThreads = 256, LogitsAThread = 4;

    internal static readonly KernelDefinition<Kernel.Args> FindLargest = new(Kernel.RunFind, new KernelTraits(MostThreads, Overlaps: true));
    internal static readonly KernelDefinition<Kernel.Args> TakeLargest = new(Kernel.RunTake, new KernelTraits(Kernel.MostRows, Overlaps: true));

    /// <summary>Most rows of a call.</summary>
    public const int MostRows = Kernel.MostRows;

    /// <summary>
    /// Writes the tokens of the rows in <paramref name="mask"/> whose position is not negative; the others stay. Ties go to the lowest index; a row without a finite
    /// logit gives token 0. Bitwise repeatable; rows do not influence each other.
    /// </summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="logits"><c>[rows, vocabulary]</c> float32.</param>
    /// <param name="best"><c>[rows]</c> workspace, zero before and after; its length says how many rows there are.</param>
    /// <param name="positions"><c>[rows]</c>.</param>
    /// <param name="tokens"><c>[rows]</c>, written.</param>
    /// <param name="mask">Bit r for row r.</param>
    /// <exception cref="ArgumentException">There are too many rows, or a view is too short or lives on another device.</exception>
    public static void Sample(GpuStream stream, ArrayView<float> logits, ArrayView<ulong> best, ArrayView<int> positions, ArrayView<int> tokens, uint mask)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Shape.RequireRange(best.Length, 1, MostRows, nameof(best));
        int rows = (int)best.Length, vocabulary = (int)(logits.Length / rows);
        Shape.RequireRange(vocabulary, 1, Kernels.Sampler.MaxVocabulary, nameof(logits));
        Shape.Require(stream, logits, rows, vocabulary, nameof(logits));
        Shape.Require(stream, best, 1, rows, nameof(best));
        Shape.Require(stream, positions, 1, rows, nameof(positions));
        Shape.Require(stream, tokens, 1, rows, nameof(tokens));
        var args = new Kernel.Args { Logits = logits, Best = best, Positions = positions, Tokens = tokens, Vocabulary = vocabulary, Mask = mask };
        int threads = LaunchShape.Threads(stream.Device, MostThreads);
        stream.Device.Launch(FindLargest, stream, (LaunchShape.Blocks(stream.Device, vocabulary, threads * LogitsAThread), rows, 1), threads, 0, args);
        stream.Device.Launch(TakeLargest, stream, (1, 1, 1), LaunchShape.Threads(stream.Device, Kernel.MostRows), 0, args);
    }
}
