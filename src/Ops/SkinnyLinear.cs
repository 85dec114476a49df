using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu;

/// <summary>Launches <see cref="SkinnyGemm"/> or, where the plan says so, <see cref="SkinnyArranging"/>.</summary>
internal static class SkinnyLinear
{
    // With fewer rows of x, or fewer weights a multiprocessor, x as it lies is as fast (docs/kernels/gemv.md).
    private const int RowsWanted = 4;
    private const long WeightsWanted = 400_000;

    // Of 128 registers a thread.
    private const int WarpsOfMultiprocessor = 16;

    /// <summary>
    /// Whether x is worth arranging by blocks of so many warps: 4 to 16 rows of BF16 or NVFP4 by a large matrix of four bits. All blocks must run at once: one that begins when x has been arranged does not find that out. Cards of fewer than about 128 multiprocessors have
    /// no room for that and read x as it lies.
    /// </summary>
    public static bool Arranges(in LinearShape shape, in LinearDevice device, int tiles, int warps) =>
        CanArrange(shape, device) && shape.M >= RowsWanted && (long)shape.N * shape.K >= WeightsWanted * device.Multiprocessors && tiles <= (long)device.Multiprocessors * BlocksOfMultiprocessor(shape, device, warps);

    private static int BlocksOfMultiprocessor(in LinearShape shape, in LinearDevice device, int warps) =>
        (int)Math.Min(WarpsOfMultiprocessor / warps, device.SharedBytes / (SkinnyGemm.SharedBytes(warps, 2) + AsideBytes(shape)));

    /// <summary>Whether x can be arranged, into the stream's scratch: whole tiles of rows of W, a chunk or more of columns.</summary>
    public static bool CanArrange(in LinearShape shape, in LinearDevice device) =>
        SkinnyKernels.ExistArranging(shape.Format, shape.Activations) && shape.N % SkinnyGemm.Rows == 0 && shape.K >= 2 * SkinnyGemm.ChunkBytes
        && ArrangeInputs.Bytes(shape.K, SkinnyGemm.Tiles(shape.M, false)) <= LaunchScratch.PartialBytes(device.Multiprocessors);

    /// <summary>Whether a block's multipliers fit into its shared memory, beside the sums of 16 rows: K of <see cref="SkinnyAside"/>'s formats has an end (docs/kernels/gemv.md).</summary>
    public static bool Fits(in LinearShape shape, in LinearDevice device) =>
        SkinnyGemm.SharedBytes(SkinnyGemm.MostWarps, 2) + AsideBytes(shape) <= device.SharedBytes;

    /// <summary>Whether a block brings multipliers into shared memory.</summary>
    public static bool HasAside(in LinearShape shape) => AsideBytes(shape) > 0;

    /// <summary>A product whose arguments are complete.</summary>
    public static void Launch(GpuStream stream, WeightFormat format, LinearArgs args, in LinearPlan plan, ActivationFormat? activations = null)
    {
        // Somebody else's graph cannot own the scratch: there x is read as it lies, with the same bits.
        if (!plan.ArrangesInputs || stream.FindScratch() is not { } scratch)
        {
            Multiply(stream, format, args, plan, activations);
            return;
        }
        var arranging = new SkinnyArrangingArgs { Product = args, Inputs = Arrange(scratch, args, plan) };
        stream.Device.Launch(SkinnyKernels.GetArranging(format, activations, args.M, args.IsFloat32 != 0), stream, (plan.GridX, plan.GridY, 1), plan.Threads, SharedBytes(format, activations, (args.M, args.K, args.ScaleTable.Columns), plan), arranging);
    }

    // A part is an item, or several where there are fewer warps. As many warps of a block have one as must.
    private static ArrangedInputs Arrange(LaunchScratch scratch, in LinearArgs args, in LinearPlan plan)
    {
        int items = ArrangeInputs.Items(args.K, SkinnyGemm.Tiles(args.M, false)), warps = Math.Min(plan.Threads / 32, (items + plan.GridX - 1) / plan.GridX);
        return new ArrangedInputs { Memory = scratch.Partials, Progress = scratch.Progress, Warps = warps, Parts = Math.Min(Math.Min(items, warps * plan.GridX), ArrangeInputs.MostParts) };
    }

    private static void Multiply(GpuStream stream, WeightFormat format, in LinearArgs args, in LinearPlan plan, ActivationFormat? activations)
    {
        KernelDefinition<LinearArgs> kernel = SkinnyKernels.Get(format, activations, args.M, args.IsFloat32 != 0);
        stream.Device.Launch(kernel, stream, (plan.GridX * SkinnyKernels.RowParts(activations, args.M), plan.GridY, 1), plan.Threads, SharedBytes(format, activations, (args.M, args.K, args.ScaleTable.Columns), plan), args);
    }

    /// <summary>Dynamic shared memory that a block of a launch asks for: what it uses, or what its plan has from <see cref="SkinnyRoom"/> if that is more.</summary>
    public static int SharedBytes(WeightFormat format, ActivationFormat? activations, (int M, int K, int ScaleColumns) size, in LinearPlan plan) =>
        Math.Max(plan.SharedBytes, SkinnyGemm.SharedBytes(plan.Threads / 32, SkinnyKernels.Tiles(activations, size.M)) + (int)AsideBytes(format, activations, size.K, size.ScaleColumns));

    private static long AsideBytes(in LinearShape shape) => AsideBytes(shape.Format, shape.Activations, shape.K, shape.Block.ColumnBlocks(shape.K));

    // Of the multipliers and zero points of a block's rows, of which each has so many of blocks.
    private static long AsideBytes(WeightFormat format, ActivationFormat? activations, int k, int columns) => format switch
    {
        WeightFormat.Nvfp4 => SkinnyAside.SharedBytes(k / 16, 0),
        WeightFormat.Int4 when activations is null => SkinnyAside.SharedBytes((long)columns * sizeof(float), 0),
        WeightFormat.Int4Zero => SkinnyAside.SharedBytes((long)columns * sizeof(float), (columns + 1L) / 2),
        _ => 0,
    };
}
