using GpuKit.Ilgpu.Runtime;
using ILGPU;
using Kernel = GpuKit.Ilgpu.Kernels.RandomFill;

namespace GpuKit.Ilgpu;

/// <summary>
/// Random contents made on the device: a function of seed and element number, the same on every device. For models without files.
/// </summary>
internal static class RandomFill
{
    private const int Threads = 256;

    // A code is Gaussian times this: the largest is 443, below E4M3's 448.
    private const float Fp8CodeDeviation = 128;

    // Root mean squares of even numbers −8..7 (and of 0..15 less 8), and of E2M1's values times an E4M3 scale of 1 to 1.875.
    private const float Int4CodeDeviation = 4.64f, Nvfp4CodeDeviation = 2.93f * 1.46f;

    internal static readonly KernelDefinition<Kernel.Args> E4M3 = new(Kernel.RunE4M3, new KernelTraits(Threads));
    internal static readonly KernelDefinition<Kernel.Args> Bf16Numbers = new(Kernel.RunBf16, new KernelTraits(Threads));
    internal static readonly KernelDefinition<Kernel.Args> Float32Numbers = new(Kernel.RunFloat32, new KernelTraits(Threads));
    internal static readonly KernelDefinition<Kernel.Args> RawBytes = new(Kernel.RunBytes, new KernelTraits(Threads));

    /// <summary>BF16 numbers of a mean and a standard deviation, about Gaussian.</summary>
    public static void Gaussian(GpuStream stream, ArrayView<BFloat16> target, ulong seed, float mean, float deviation) =>
        Launch(stream, Bf16Numbers, new Kernel.Args { Target = target.Cast<byte>(), Offset = mean, Factor = deviation }, target.Length, seed);

    /// <summary>Keys and values of a layer with the deviation 1; an FP8 cache's scales are all alike.</summary>
    public static void Cache(GpuStream stream, KvLayer layer, ulong seed)
    {
        if (layer.Cache.Format == KvCacheFormat.Bf16)
        {
            Gaussian(stream, layer.Keys, seed, 0, 1);
            Gaussian(stream, layer.Values, seed + 1, 0, 1);
            return;
        }
        KvCodes codes = layer.Codes;
        Codes(stream, WeightFormat.Fp8Block, codes.Keys, seed, 1);
        Codes(stream, WeightFormat.Fp8Block, codes.Values, seed + 1, 1);
        Even(stream, codes.KeyScales, seed, 1 / Fp8CodeDeviation, 0);
        Even(stream, codes.ValueScales, seed, 1 / Fp8CodeDeviation, 0);
    }

    /// <summary>Rows of one matrix of a stack: weights of a standard deviation, with scales that differ by a quarter up and down.</summary>
    /// <param name="stream">Stream to launch on.</param>
    /// <param name="matrix">The stack.</param>
    /// <param name="slab">Which matrix of it.</param>
    /// <param name="rows">First row and number; on block edges in a scaled format, all in NVFP4.</param>
    /// <param name="seed">Of these rows.</param>
    /// <param name="deviation">About the standard deviation of the weights.</param>
    public static void Weights(GpuStream stream, QuantizedMatrix matrix, int slab, (int First, int Count) rows, ulong seed, float deviation)
    {
        long rowBytes = matrix.Format.RowBytes(matrix.K);
        int terms = matrix.Format.Terms();
        for (int term = 0; term < terms; term++)
        {
            long start = (matrix.BytesPerMatrix * slab) + (matrix.BytesPerMatrix / terms * term) + (rowBytes * rows.First);
            Codes(stream, matrix.Format, matrix.Codes.View.SubView(start, rowBytes * rows.Count), seed + (uint)(8 * term), deviation);
        }
        if (!matrix.Format.IsScaled())
            return;
        float scale = deviation / CodeDeviation(matrix.Format);
        int columns = matrix.Block.ColumnBlocks(matrix.K), firstBlock = rows.First / matrix.Block.Rows, blocks = matrix.Block.RowBlocks(rows.Count);
        if (matrix.Format.HasGroupScales())
        {
            Bytes(stream, matrix.GroupScales.View.SubView(((long)slab * matrix.GroupScalesPerMatrix) + ((long)firstBlock * columns), (long)blocks * columns), seed + 1, 0x07, 0x38);
            Even(stream, matrix.Scales.View.SubView(slab, 1), seed + 2, scale, 0);
            return;
        }
        for (int term = 0; term < terms; term++)
        {
            long start = ((long)matrix.ScalesPerMatrix * slab) + (matrix.ScalesPerMatrix / terms * term) + ((long)firstBlock * columns);
            Even(stream, matrix.Scales.View.SubView(start, (long)blocks * columns), seed + 2 + (uint)(8 * term), scale * 0.75f, scale * 0.5f);
            // A residual is a sixteenth of what it is left over from.
            scale /= 16;
        }
        int zeroBytes = (columns + 1) / 2;
        if (matrix.ZeroBytesPerMatrix > 0)
            Bytes(stream, matrix.ZeroPoints.View.SubView(((long)matrix.ZeroBytesPerMatrix * slab) + ((long)firstBlock * zeroBytes), (long)blocks * zeroBytes), seed + 3, 0, 0x88);
    }

    private static void Codes(GpuStream stream, WeightFormat format, ArrayView<byte> codes, ulong seed, float deviation)
    {
        switch (format)
        {
            case WeightFormat.Bf16:
                Gaussian(stream, codes.Cast<BFloat16>(), seed, 0, deviation);
                break;
            case WeightFormat.Fp8Block or WeightFormat.Fp8TwoTerm:
                Launch(stream, E4M3, new Kernel.Args { Target = codes, Factor = Fp8CodeDeviation }, codes.Length, seed);
                break;
            default:
                Bytes(stream, codes, seed, 0xFF, 0);
                break;
        }
    }

    private static float CodeDeviation(WeightFormat format) => format switch
    {
        WeightFormat.Nvfp4 => Nvfp4CodeDeviation,
        WeightFormat.Int4 or WeightFormat.Int4Zero => Int4CodeDeviation,
        _ => Fp8CodeDeviation,
    };

    private static void Even(GpuStream stream, ArrayView<float> target, ulong seed, float least, float range) =>
        Launch(stream, Float32Numbers, new Kernel.Args { Target = target.Cast<byte>(), Offset = least, Factor = range }, target.Length, seed);

    private static void Bytes(GpuStream stream, ArrayView<byte> target, ulong seed, uint keep, uint set) =>
        Launch(stream, RawBytes, new Kernel.Args { Target = target, Keep = keep, Set = set }, target.Length, seed);

    private static void Launch(GpuStream stream, KernelDefinition<Kernel.Args> kernel, Kernel.Args args, long elements, ulong seed)
    {
        args.SeedLow = (uint)seed;
        args.SeedHigh = (uint)(seed >> 32);
        int threads = LaunchShape.Threads(stream.Device, Threads);
        // A few elements a thread: a matrix of an expert still fills the card, a whole embedding needs no million blocks.
        int most = stream.Device.IsCuda ? stream.Device.MultiprocessorCount * 32 : LaunchShape.Blocks(stream.Device, elements, threads);
        int blocks = Math.Min(most, LaunchShape.Blocks(stream.Device, elements, threads));
        stream.Device.Launch(kernel, stream, (blocks, 1, 1), threads, 0, args);
    }
}
