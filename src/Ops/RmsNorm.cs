using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.RmsNorm;

namespace GpuKit.Ilgpu;

/// <summary>Sizes of an RMSNorm.</summary>
/// <param name="Rows">Number of rows; 0 does nothing.</param>
/// <param name="Width">Elements a row, the hidden size.</param>
/// <param name="Epsilon">Added to the mean square; finite and not negative.</param>
public readonly record struct RmsNormShape(int Rows, int Width, float Epsilon);

/// <summary>
/// Root-mean-square normalisation of the float32 residual stream into BF16 activations. Bitwise repeatable; a row's bits
/// do not depend on other rows or on their number.
/// </summary>
public static class RmsNorm
{
    private const int MostThreads = 1024;

    // One block of all threads has 64 registers each; for two, which the compiler aims at, it spills.
    private static readonly KernelTraits Traits = new(MostThreads, Overlaps: true, BlocksPerMultiprocessor: 1);

    internal static readonly KernelDefinition<Kernel.Args> Normalize = new(Kernel.Run, Traits);
    internal static readonly KernelDefinition<Kernel.Args> AddNormalize = new(Kernel.RunAdd, Traits);

    /// <summary><c>y[r, i] = bf16(x[r, i] · rsqrt(mean(x[r]²) + eps) · gain[i])</c>, float32 inside.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="x"><c>[rows, width]</c> float32.</param>
    /// <param name="gain"><c>[width]</c> BF16.</param>
    /// <param name="y"><c>[rows, width]</c> BF16.</param>
    /// <param name="shape">Rows, width and epsilon.</param>
    /// <exception cref="ArgumentException">A size or epsilon is out of range, or a view is too short or lives on another device.</exception>
    public static void Apply(GpuStream stream, ArrayView<float> x, ArrayView<BFloat16> gain, ArrayView<BFloat16> y, RmsNormShape shape)
    {
        Require(stream, x, gain, y, shape);
        Launch(Normalize, stream, Arguments(x, x, gain, y, shape));
    }

    /// <summary><c>x += addend</c> (stored), then <see cref="Apply"/> of the new x, in one launch.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="x"><c>[rows, width]</c> float32, updated in place.</param>
    /// <param name="addend"><c>[rows, width]</c> float32.</param>
    /// <param name="gain"><c>[width]</c> BF16.</param>
    /// <param name="y"><c>[rows, width]</c> BF16.</param>
    /// <param name="shape">Rows, width and epsilon.</param>
    /// <exception cref="ArgumentException">A size or epsilon is out of range, or a view is too short or lives on another device.</exception>
    public static void AddAndApply(GpuStream stream, ArrayView<float> x, ArrayView<float> addend, ArrayView<BFloat16> gain, ArrayView<BFloat16> y, RmsNormShape shape)
    {
        Require(stream, x, gain, y, shape);
        Shape.Require(stream, addend, shape.Rows, shape.Width, nameof(addend));
        Launch(AddNormalize, stream, Arguments(x, addend, gain, y, shape));
    }

    private static void Require(GpuStream stream, ArrayView<float> x, ArrayView<BFloat16> gain, ArrayView<BFloat16> y, RmsNormShape shape)
    {
        ArgumentNullException.ThrowIfNull(stream);
        Shape.RequireSize(shape.Rows, nameof(shape.Rows));
        Shape.RequireSize(shape.Width, nameof(shape.Width));
        Shape.RequireEpsilon(shape.Epsilon, nameof(shape.Epsilon));
        Shape.Require(stream, x, shape.Rows, shape.Width, nameof(x));
        Shape.Require(stream, gain, shape.Rows == 0 ? 0 : 1, shape.Width, nameof(gain));
        Shape.Require(stream, y, shape.Rows, shape.Width, nameof(y));
    }

    private static Kernel.Args Arguments(ArrayView<float> x, ArrayView<float> addend, ArrayView<BFloat16> gain, ArrayView<BFloat16> y, RmsNormShape shape) => new()
    {
        X = x,
        Addend = addend,
        Gain = gain.Cast<ushort>(),
        Output = y.Cast<ushort>(),
        Rows = shape.Rows,
        Width = shape.Width,
        Epsilon = shape.Epsilon,
        HasWords = HasWords(x, gain, y, shape.Width) && Shape.IsVectorAligned(addend, 4L * shape.Width) ? 1 : 0,
    };

    /// <summary>Whether rows may be read and written in words.</summary>
    internal static bool HasWords(ArrayView<float> x, ArrayView<BFloat16> gain, ArrayView<BFloat16> y, int width) =>
        Shape.IsVectorAligned(x, 4L * width) && (Shape.Address(gain) & 7) == 0 && (Shape.Address(y) & 7) == 0;

    private static void Launch(KernelDefinition<Kernel.Args> kernel, GpuStream stream, Kernel.Args args)
    {
        if (args.Rows == 0 || args.Width == 0)
            return;
        // Two words a thread where the row has that many: one load latency, not several. Depends on the width alone, as the order of a row's sum does.
        int threads = LaunchShape.WholeWarps(stream.Device, (args.Width + 7) >> 3, MostThreads);
        stream.Device.Launch(kernel, stream, (LaunchShape.Blocks(stream.Device, args.Rows, 1), 1, 1), threads, 0, args);
    }
}
