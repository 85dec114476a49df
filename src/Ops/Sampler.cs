using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.Sampler;

namespace GpuKit.Ilgpu;

/// <summary>Draws tokens from logits on the device.</summary>
public static class Sampler
{
    private const int Threads = 1024;

    // A thread of the search for the largest logit looks at about so many.
    private const int GreedyThreads = 256, LogitsAThread = 4;

    internal static readonly KernelDefinition<Kernel.Args> DrawToken = new(Kernel.Run, new KernelTraits(Threads));
    internal static readonly KernelDefinition<Kernels.GreedySampler.Args> FindLargest = new(Kernels.GreedySampler.RunFind, new KernelTraits(GreedyThreads, Overlaps: true));
    internal static readonly KernelDefinition<Kernels.GreedySampler.Args> TakeLargest = new(Kernels.GreedySampler.RunTake, new KernelTraits(1, Overlaps: true));

    /// <summary>
    /// Draws one token: repetition penalty, then arg-max (temperature 0) or logits / temperature → top-k → top-p → min-p →
    /// multinomial; writes it, marks it as seen and counts the draw. One launch (two of many blocks at temperature 0 without a penalty) that reads all that changes between tokens
    /// from the device, so it can be recorded in a graph with its options.
    /// </summary>
    /// <remarks>
    /// Exact and the same on every device for equal logits, options and state: probabilities relative to the largest are
    /// fixed-point numbers of 40 fraction bits (rarer tokens are never drawn), ties go to the lowest index, and random bits
    /// are Philox4x32-10 of seed and draw number. A NaN logit is never drawn; a row without a finite logit gives token 0.
    /// </remarks>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="logits"><c>[vocabulary]</c> float32, unchanged.</param>
    /// <param name="state">State of the sequence.</param>
    /// <param name="options">How to draw.</param>
    /// <param name="outputToken"><c>[1]</c>, written.</param>
    /// <exception cref="ArgumentException">An option is out of range, or a view is too short or lives on another device.</exception>
    public static void Sample(GpuStream stream, ArrayView<float> logits, SamplerState state, SamplingOptions options, ArrayView<int> outputToken)
    {
        Require(stream, logits, state, options, outputToken);
        // The CPU's few lanes gain nothing from more blocks.
        if (IsGreedy(options) && stream.Device.WarpSize == 32)
            TakeArgMax(stream, logits, state, outputToken);
        else
            Draw(stream, logits, state, options, (outputToken, default));
    }

    /// <summary>Whether the token is the one with the largest logit, whatever was seen before.</summary>
    internal static bool IsGreedy(SamplingOptions options) => options.Temperature == 0 && options.RepetitionPenalty == 1;

    /// <summary>The same in one launch, which does nothing while the sequence's position is negative.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="logits"><c>[vocabulary]</c> float32.</param>
    /// <param name="state">State of the sequence.</param>
    /// <param name="options">How to draw.</param>
    /// <param name="output"><c>[1]</c> the token, written, and <c>[1]</c> the position.</param>
    internal static void SampleIfRunning(GpuStream stream, ArrayView<float> logits, SamplerState state, SamplingOptions options, (ArrayView<int> Token, ArrayView<int> Position) output)
    {
        Require(stream, logits, state, options, output.Token);
        Shape.Require(stream, output.Position, 1, 1, nameof(output));
        Draw(stream, logits, state, options, output);
    }

    private static void Require(GpuStream stream, ArrayView<float> logits, SamplerState state, SamplingOptions options, ArrayView<int> outputToken)
    {
        ArgumentNullException.ThrowIfNull(stream);
        ArgumentNullException.ThrowIfNull(state);
        ArgumentNullException.ThrowIfNull(options);
        options.Validate();
        stream.Device.RequireSame(state.Device, nameof(state));
        Shape.Require(stream, logits, 1, state.Vocabulary, nameof(logits));
        Shape.Require(stream, outputToken, 1, 1, nameof(outputToken));
    }

    private static void Draw(GpuStream stream, ArrayView<float> logits, SamplerState state, SamplingOptions options, (ArrayView<int> Token, ArrayView<int> Position) output)
    {
        var args = new Kernel.Args
        {
            Logits = logits,
            Seen = state.Seen,
            Adjusted = state.Adjusted,
            Candidates = state.Candidates,
            Counter = state.Counter,
            Token = output.Token,
            Position = output.Position,
            Temperature = options.Temperature,
            RepetitionPenalty = options.RepetitionPenalty,
            TopK = options.TopK < state.Vocabulary ? options.TopK : 0,
            TopP = options.TopP < 1 ? (uint)Math.Max(1, options.TopP * 4294967296.0) : 0,
            LeastMass = Math.Max(1, (ulong)(options.MinP * (double)(1ul << Kernels.FixedExp.FractionBits))),
            Seed = options.Seed,
        };
        stream.Device.Launch(DrawToken, stream, (1, 1, 1), LaunchShape.WholeWarps(stream.Device, state.Vocabulary, Threads), 0, args);
    }

    private static void TakeArgMax(GpuStream stream, ArrayView<float> logits, SamplerState state, ArrayView<int> outputToken)
    {
        var args = new Kernels.GreedySampler.Args { Logits = logits.SubView(0, state.Vocabulary), Best = state.Best, Seen = state.Seen, Counter = state.Counter, Token = outputToken };
        int threads = LaunchShape.Threads(stream.Device, GreedyThreads);
        stream.Device.Launch(FindLargest, stream, (LaunchShape.Blocks(stream.Device, state.Vocabulary, threads * LogitsAThread), 1, 1), threads, 0, args);
        stream.Device.Launch(TakeLargest, stream, (1, 1, 1), 1, 0, args);
    }
}
