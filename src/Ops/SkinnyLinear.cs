using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="SkinnyGemm"/>, where the plan says so after <see cref="ArrangeInputs"/>.</summary>
internal static class SkinnyLinear
{
    private const int ArrangingThreads = 64;

    // Below so many weights a multiprocessor, or with less than three tiles for two of them, the launch that arranges costs more than it saves (docs/kernels/gemv.md).
    private const long WeightsWanted = 400_000;

    internal static readonly KernelDefinition<ArrangeInputs.Args> Arrange = new(ArrangeInputs.Run, new KernelTraits(ArrangingThreads, NeedsWarp32: true, Overlaps: true));

    /// <summary>Whether x is worth arranging: 9 to 16 rows of BF16 by a large matrix of four bits.</summary>
    public static bool Arranges(in LinearShape shape, in LinearDevice device) =>
        CanArrange(shape, device) && (long)shape.N * shape.K >= WeightsWanted * device.Multiprocessors && 2L * shape.N >= 3L * SkinnyGemm.Rows * device.Multiprocessors;

    /// <summary>Whether x can be arranged: into a launch's scratch.</summary>
    public static bool CanArrange(in LinearShape shape, in LinearDevice device) =>
        shape.Activations is null && shape.M > SkinnyGemm.Columns && shape.Format.Info().BitsPerCode == 4 && ArrangeInputs.Bytes(shape.K) <= LaunchScratch.PartialBytes(device.Multiprocessors);

    /// <summary>Whether a block's multipliers fit into its shared memory, beside the sums of 16 rows: K of <see cref="SkinnyAside"/>'s formats has an end (docs/kernels/gemv.md).</summary>
    public static bool Fits(in LinearShape shape, in LinearDevice device) =>
        SkinnyGemm.SharedBytes(SkinnyGemm.MostWarps, 2) + AsideBytes(shape.Format, shape.Activations, shape.K, shape.Block.ColumnBlocks(shape.K)) <= device.SharedBytes;

    /// <summary>A product whose arguments are complete.</summary>
    public static void Launch(GpuStream stream, WeightFormat format, LinearArgs args, in LinearPlan plan, ActivationFormat? activations = null)
    {
        // Somebody else's graph cannot own the scratch: there x is read as it lies, with the same bits.
        if (!plan.ArrangesInputs || stream.FindScratch() is not { } scratch)
        {
            Multiply(stream, format, args, plan with { ArrangesInputs = false }, activations);
            return;
        }
        lock (scratch.Gate)
        {
            ArrangeIn(stream, scratch.Partials, args);
            Multiply(stream, format, args with { X = scratch.Partials.View.Cast<ushort>() }, plan, activations);
        }
    }

    private static void Multiply(GpuStream stream, WeightFormat format, in LinearArgs args, in LinearPlan plan, ActivationFormat? activations)
    {
        KernelDefinition<LinearArgs> kernel = SkinnyKernels.Get(format, activations, args.M, args.IsFloat32 != 0, plan.ArrangesInputs);
        int shared = SkinnyGemm.SharedBytes(plan.Threads / 32, SkinnyKernels.Tiles(activations, args.M)) + (int)AsideBytes(format, activations, args.K, args.ScaleTable.Columns);
        stream.Device.Launch(kernel, stream, (plan.GridX * SkinnyKernels.RowParts(activations, args.M), plan.GridY, 1), plan.Threads, shared, args);
    }

    // Of the multipliers and zero points of a block's rows, of which each has so many of blocks.
    private static long AsideBytes(WeightFormat format, ActivationFormat? activations, int k, int columns) => format switch
    {
        WeightFormat.Nvfp4 => SkinnyAside.SharedBytes(k / 16, 0),
        WeightFormat.Int4 when activations is null => SkinnyAside.SharedBytes((long)columns * sizeof(float), 0),
        WeightFormat.Int4Zero => SkinnyAside.SharedBytes((long)columns * sizeof(float), (columns + 1L) / 2),
        _ => 0,
    };

    private static void ArrangeIn(GpuStream stream, ArrayView<uint> arranged, in LinearArgs product)
    {
        int threads = Math.Min(ArrangingThreads, stream.Device.MaxThreadsPerBlock), warps = threads / 32;
        var args = new ArrangeInputs.Args { X = product.X.Cast<uint>(), Arranged = arranged, M = product.M, K = product.K };
        stream.Device.Launch(Arrange, stream, ((ArrangeInputs.Warps(product.K) + warps - 1) / warps, 1, 1), threads, 0, args);
    }
}
