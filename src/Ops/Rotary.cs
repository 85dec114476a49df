using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.Rotary;

namespace GpuKit.Ilgpu;

/// <summary>Rotary position embedding (half rotation: pairs <c>(i, i + headDim/2)</c>).</summary>
public static class Rotary
{
    private const int Threads = 256;

    internal static readonly KernelDefinition<Kernel.Args> HalfRotation = new(Kernel.Run, new KernelTraits(Threads));

    /// <summary>
    /// Rotates every head of token t by the angles of position <c>position[0] + t</c>, in place, float32 inside. A position
    /// outside the table gives NaN. Bitwise repeatable.
    /// </summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="x"><c>[tokens, heads, table.HeadDim]</c> BF16.</param>
    /// <param name="table">Angles.</param>
    /// <param name="position"><c>[1]</c> on the device: position of the first token.</param>
    /// <param name="tokens">Number of tokens; 0 does nothing.</param>
    /// <param name="heads">Heads a token.</param>
    /// <exception cref="ArgumentException">A view is too short or something lives on another device.</exception>
    public static void Apply(GpuStream stream, ArrayView<BFloat16> x, RotaryTable table, ArrayView<int> position, int tokens, int heads)
    {
        ArgumentNullException.ThrowIfNull(stream);
        ArgumentNullException.ThrowIfNull(table);
        Shape.RequireSize(tokens, nameof(tokens));
        Shape.RequireSize(heads, nameof(heads));
        stream.Device.RequireSame(table.Device, nameof(table));
        Shape.Require(stream, x, tokens, (long)heads * table.HeadDim, nameof(x));
        long pairs = (long)tokens * heads * (table.HeadDim / 2);
        if (pairs == 0)
            return;
        Shape.Require(stream, position, 1, 1, nameof(position));
        int threads = LaunchShape.Threads(stream.Device, Threads);
        var args = new Kernel.Args
        {
            X = x.Cast<ushort>(),
            Cos = table.Cos,
            Sin = table.Sin,
            Position = position,
            Tokens = tokens,
            Heads = heads,
            Half = table.HeadDim / 2,
            Positions = table.Positions,
        };
        stream.Device.Launch(HalfRotation, stream, (LaunchShape.Blocks(stream.Device, pairs, threads), 1, 1), threads, 0, args);
    }
}
