using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>The one place where run-time choices become type arguments of <see cref="SkinnyGemm"/> and <see cref="SkinnyArranging"/>, and which formats there are.</summary>
internal static class SkinnyKernels
{
    // A tile's rows share a scale in a format with square blocks; a chunk's columns in all.
    private const int Fp8Columns = SkinnyGemm.ChunkBytes, FourBitColumns = 2 * SkinnyGemm.ChunkBytes;

    // The bound of 512 threads holds the compiler to 128 registers a thread (docs/kernels/gemv.md).
    private static readonly KernelTraits Traits = new(32 * SkinnyGemm.MostWarps, NeedsWarp32: true, Overlaps: true);

    // With two tiles of x and zero points the order of instructions decides whether they are enough.
    private static KernelTraits TwoTileTraits<TFormat>() => typeof(TFormat) == typeof(StreamedInt4ZeroByShifts) ? Traits with { JoinedFirst = true } : Traits;

    private static readonly Dictionary<Key, KernelDefinition<LinearArgs>> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values;

    private static readonly Dictionary<Key, KernelDefinition<SkinnyArrangingArgs>> ArrangingByKey = CreateArranging();

    /// <summary>Those that arrange x, likewise.</summary>
    internal static readonly IEnumerable<KernelDefinition> AllArranging = ArrangingByKey.Values;

    private readonly record struct Key(WeightFormat Format, ActivationFormat? Activations, bool Float32 = false, int Tiles = 1);

    /// <summary>The kernel for <paramref name="m"/> rows.</summary>
    /// <param name="format">Format of W.</param>
    /// <param name="activations">Format of x, or null for BF16.</param>
    /// <param name="m">1 to 16.</param>
    /// <param name="float32">Whether y is float32.</param>
    public static KernelDefinition<LinearArgs> Get(WeightFormat format, ActivationFormat? activations, int m, bool float32) =>
        ByKey[new Key(format, activations, float32, Tiles(activations, m))];

    /// <summary>Whether there are kernels whose blocks arrange x.</summary>
    public static bool ExistArranging(WeightFormat format, ActivationFormat? activations) => ArrangingByKey.ContainsKey(new Key(format, activations));

    /// <summary>The one for <paramref name="m"/> rows.</summary>
    public static KernelDefinition<SkinnyArrangingArgs> GetArranging(WeightFormat format, ActivationFormat? activations, int m, bool float32) => ArrangingByKey[new Key(format, activations, float32, Tiles(activations, m))];

    /// <summary>Tiles of x of a block.</summary>
    public static int Tiles(ActivationFormat? activations, int m) => SkinnyGemm.Tiles(m, HasHalves(activations));

    /// <summary>Blocks that share rows of W.</summary>
    public static int RowParts(ActivationFormat? activations, int m) => SkinnyGemm.RowParts(m, HasHalves(activations));

    private static bool HasHalves(ActivationFormat? activations) => activations == ActivationFormat.Fp8Group32;

    /// <summary>Whether there is a kernel for weights with such scale blocks and such activations (null: BF16).</summary>
    public static bool Exist(WeightFormat format, ActivationFormat? activations, ScaleBlock block) => (format, activations) switch
    {
        (WeightFormat.Bf16 or WeightFormat.Nvfp4, null) or (WeightFormat.Nvfp4, ActivationFormat.Nvfp4) => true,
        // The dispatch has seen to one scale a row.
        (WeightFormat.Int4, ActivationFormat.Int4) => true,
        (WeightFormat.Int4 or WeightFormat.Int4Zero, null) => block.Columns >= FourBitColumns,
        (WeightFormat.Fp8Block, null or ActivationFormat.Fp8Group128) or (WeightFormat.Fp8TwoTerm, null) => block.Columns >= Fp8Columns && block.Rows >= SkinnyGemm.Rows,
        (WeightFormat.Fp8Block, ActivationFormat.Fp8Group32) => block.Columns >= Fp8Columns / 2 && block.Rows >= SkinnyGemm.Rows,
        _ => false,
    };

    private static Dictionary<Key, KernelDefinition<LinearArgs>> Create()
    {
        var kernels = new Dictionary<Key, KernelDefinition<LinearArgs>>();
        Add<StreamedBf16, StreamedBf16Inputs>(kernels, new Key(WeightFormat.Bf16, null));
        Add<StreamedFp8, StreamedBf16Inputs>(kernels, new Key(WeightFormat.Fp8Block, null));
        Add<StreamedFp8TwoTerm, StreamedBf16Inputs>(kernels, new Key(WeightFormat.Fp8TwoTerm, null));
        Add<StreamedNvfp4, StreamedBf16Inputs>(kernels, new Key(WeightFormat.Nvfp4, null));
        Add<StreamedInt4, StreamedInt4SignsFirst, StreamedBf16Inputs>(kernels, new Key(WeightFormat.Int4, null));
        Add<StreamedInt4Zero, StreamedInt4ZeroByShifts, StreamedBf16Inputs>(kernels, new Key(WeightFormat.Int4Zero, null));
        Add<StreamedFp8Half, StreamedFp8Inputs128>(kernels, new Key(WeightFormat.Fp8Block, ActivationFormat.Fp8Group128));
        Add<StreamedFp8Half, StreamedFp8Inputs32>(kernels, new Key(WeightFormat.Fp8Block, ActivationFormat.Fp8Group32));
        Add<StreamedNvfp4, StreamedNvfp4Inputs>(kernels, new Key(WeightFormat.Nvfp4, ActivationFormat.Nvfp4));
        Add<StreamedInt4Bytes, StreamedInt4Inputs>(kernels, new Key(WeightFormat.Int4, ActivationFormat.Int4));
        return kernels;
    }

    private static Dictionary<Key, KernelDefinition<SkinnyArrangingArgs>> CreateArranging()
    {
        var kernels = new Dictionary<Key, KernelDefinition<SkinnyArrangingArgs>>();
        AddArranging<StreamedNvfp4, StreamedBf16Inputs>(kernels, new Key(WeightFormat.Nvfp4, null));
        AddArranging<StreamedNvfp4, StreamedNvfp4Inputs>(kernels, new Key(WeightFormat.Nvfp4, ActivationFormat.Nvfp4));
        AddArranging<StreamedInt4, StreamedBf16Inputs>(kernels, new Key(WeightFormat.Int4, null));
        AddArranging<StreamedInt4Zero, StreamedBf16Inputs>(kernels, new Key(WeightFormat.Int4Zero, null));
        return kernels;
    }

    private static void AddArranging<TFormat, TInput>(Dictionary<Key, KernelDefinition<SkinnyArrangingArgs>> kernels, Key key)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        kernels.Add(key, new(SkinnyArranging.Run<TFormat, TInput, Bf16Output, OneTile>, Traits));
        kernels.Add(key with { Tiles = 2 }, new(SkinnyArranging.Run<TFormat, TInput, Bf16Output, TwoTiles>, Traits));
        kernels.Add(key with { Float32 = true }, new(SkinnyArranging.Run<TFormat, TInput, Float32Output, OneTile>, Traits));
        kernels.Add(key with { Float32 = true, Tiles = 2 }, new(SkinnyArranging.Run<TFormat, TInput, Float32Output, TwoTiles>, Traits));
    }

    private static void Add<TFormat, TInput>(Dictionary<Key, KernelDefinition<LinearArgs>> kernels, Key key)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs => Add<TFormat, TFormat, TInput>(kernels, key);

    // With a decoder of its own for two tiles.
    private static void Add<TFormat, TTwoTiles, TInput>(Dictionary<Key, KernelDefinition<LinearArgs>> kernels, Key key)
        where TFormat : struct, IStreamedFormat
        where TTwoTiles : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        kernels.Add(key, new(SkinnyGemm.Run<TFormat, TInput, Bf16Output, OneTile>, Traits));
        kernels.Add(key with { Tiles = 2 }, new(SkinnyGemm.Run<TTwoTiles, TInput, Bf16Output, TwoTiles>, TwoTileTraits<TTwoTiles>()));
        kernels.Add(key with { Float32 = true }, new(SkinnyGemm.Run<TFormat, TInput, Float32Output, OneTile>, Traits));
        kernels.Add(key with { Float32 = true, Tiles = 2 }, new(SkinnyGemm.Run<TTwoTiles, TInput, Float32Output, TwoTiles>, TwoTileTraits<TTwoTiles>()));
    }
}
