using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.Embedding;

namespace GpuKit.Ilgpu;

/// <summary>Token embeddings: the first step of a language model.</summary>
public static class Embedding
{
    private const int Threads = 256;

    internal static readonly KernelDefinition<Kernel.Args> Gather = new(Kernel.Run, new KernelTraits(Threads));

    /// <summary>
    /// <c>output[t] = table[tokenIds[t]]</c>, widened to float32 exactly. An id outside the table gives a row of NaN and reads nothing.
    /// </summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="table"><c>[vocabulary, width]</c> BF16; its length says how many rows there are.</param>
    /// <param name="tokenIds"><c>[tokens]</c> on the device.</param>
    /// <param name="output"><c>[tokens, width]</c> float32.</param>
    /// <param name="tokens">Number of tokens; 0 does nothing.</param>
    /// <param name="width">Hidden size.</param>
    /// <exception cref="ArgumentException">The table is no whole number of rows, a size is negative, or a view is too short or lives on another device.</exception>
    public static void Lookup(GpuStream stream, ArrayView<BFloat16> table, ArrayView<int> tokenIds, ArrayView<float> output, int tokens, int width)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Shape.RequireSize(tokens, nameof(tokens));
        Shape.RequireSize(width, nameof(width));
        Shape.Require(stream, tokenIds, 1, tokens, nameof(tokenIds));
        Shape.Require(stream, output, tokens, width, nameof(output));
        long elements = (long)tokens * width;
        if (elements == 0)
            return;
        Shape.Require(stream, table, 1, width, nameof(table));
        if (table.Length % width != 0)
            throw new ArgumentException($"'table' has {table.Length} elements, which is no whole number of rows of {width}.", nameof(table));
        int threads = LaunchShape.Threads(stream.Device, Threads);
        var args = new Kernel.Args
        {
            Table = table.Cast<ushort>(),
            TokenIds = tokenIds,
            Output = output.SubView(0, elements),
            Vocabulary = checked((int)(table.Length / width)),
            Width = width,
        };
        stream.Device.Launch(Gather, stream, (LaunchShape.Blocks(stream.Device, elements, threads), 1, 1), threads, 0, args);
    }
}
