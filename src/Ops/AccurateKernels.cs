using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>
/// The one place where run-time choices become type arguments of <see cref="AccurateGemv"/>, and which formats go together. FP8 is
/// decoded by <see cref="Fp8Hardware"/> everywhere (integer arithmetic where a card lacks the conversion): activations may hold
/// NaN codes, which the bit move would turn into numbers.
/// </summary>
internal static class AccurateKernels
{
    private const int MostThreads = 256;

    private static readonly Dictionary<Key, KernelDefinition<AccurateArgs>> ByKey = Create();

    /// <summary>All instances, for the catalog.</summary>
    internal static readonly IEnumerable<KernelDefinition> All = ByKey.Values;

    // Input: the weight format that has the codes of x.
    private readonly record struct Key(WeightFormat Format, WeightFormat Input, Accumulator Accumulator, bool Float32 = false, bool Single = false);

    /// <summary>The kernel of a plan on the path <see cref="LinearPath.Accurate"/> or <see cref="LinearPath.AccurateScalar"/>.</summary>
    /// <param name="plan">Path.</param>
    /// <param name="format">Format of W.</param>
    /// <param name="activations">Format of x, or null for BF16.</param>
    /// <param name="accumulator">How products are added.</param>
    /// <param name="float32">Whether y is float32.</param>
    public static KernelDefinition<AccurateArgs> Get(in LinearPlan plan, WeightFormat format, ActivationFormat? activations, Accumulator accumulator, bool float32)
    {
        WeightFormat input = Codes(activations);
        // Integer sums are exact: there is nothing to choose.
        Accumulator used = input == WeightFormat.Int4 ? Accumulator.Float32 : accumulator;
        return ByKey[new Key(format, input, used, float32, plan.Path == LinearPath.AccurateScalar)];
    }

    /// <summary>Throws unless a kernel multiplies such weights with such activations.</summary>
    public static void Require(QuantizedMatrix weights, ActivationFormat activations)
    {
        string name = activations.Info().Name;
        WeightFormat codes = Codes(activations);
        if (weights.Format != codes)
        {
            string fitting = string.Join(" or ", ActivationFormats.All.Where(f => Codes(f) == weights.Format).Select(f => f.Info().Name));
            throw new ArgumentException($"{weights.Format.Info().Name} weights and {name} activations do not go together: {name} activations need {codes.Info().Name} weights, and {weights.Format.Info().Name} weights BF16{(fitting.Length > 0 ? " or " + fitting : "")} activations.", nameof(weights));
        }
        if (codes == WeightFormat.Int4 && weights.Block.Columns < weights.K)
            throw new ArgumentException($"INT4 weights with a scale every {weights.Block.Columns} of {weights.K} columns and INT4 activations do not go together: integer sums need one scale a row, blocks of {weights.K} columns or more.", nameof(weights));
    }

    private static WeightFormat Codes(ActivationFormat? activations) => activations switch
    {
        null => WeightFormat.Bf16,
        ActivationFormat.Nvfp4 => WeightFormat.Nvfp4,
        ActivationFormat.Int4 => WeightFormat.Int4,
        _ => WeightFormat.Fp8Block,
    };

    private static Dictionary<Key, KernelDefinition<AccurateArgs>> Create()
    {
        var kernels = new Dictionary<Key, KernelDefinition<AccurateArgs>>();
        AddAccurate<Bf16Weights, Bf16Weights>(kernels, WeightFormat.Bf16, WeightFormat.Bf16);
        AddAccurate<Fp8Block<Fp8Hardware>, Bf16Weights>(kernels, WeightFormat.Fp8Block, WeightFormat.Bf16);
        AddAccurate<Nvfp4, Bf16Weights>(kernels, WeightFormat.Nvfp4, WeightFormat.Bf16);
        AddAccurate<Int4, Bf16Weights>(kernels, WeightFormat.Int4, WeightFormat.Bf16);
        AddAccurate<Int4Zero, Bf16Weights>(kernels, WeightFormat.Int4Zero, WeightFormat.Bf16);
        AddAccurate<Fp8TwoTerm<Fp8Hardware>, Bf16Weights>(kernels, WeightFormat.Fp8TwoTerm, WeightFormat.Bf16);
        AddAccurate<Fp8Block<Fp8Hardware>, Fp8Block<Fp8Hardware>>(kernels, WeightFormat.Fp8Block, WeightFormat.Fp8Block);
        AddAccurate<Nvfp4, Nvfp4>(kernels, WeightFormat.Nvfp4, WeightFormat.Nvfp4);
        Add<Fp8Block<Fp8Hardware>, Fp8Block<Fp8Hardware>, Float32Sum>(kernels, new Key(WeightFormat.Fp8Block, WeightFormat.Fp8Block, Accumulator.Float32));
        Add<Nvfp4, Nvfp4, Float32Sum>(kernels, new Key(WeightFormat.Nvfp4, WeightFormat.Nvfp4, Accumulator.Float32));
        Add<Int4, Int4, IntegerSum>(kernels, new Key(WeightFormat.Int4, WeightFormat.Int4, Accumulator.Float32));
        return kernels;
    }

    private static void AddAccurate<TFormat, TInput>(Dictionary<Key, KernelDefinition<AccurateArgs>> kernels, WeightFormat format, WeightFormat input)
        where TFormat : struct, IWeightFormat
        where TInput : struct, IWeightFormat
    {
        Add<TFormat, TInput, KahanSum>(kernels, new Key(format, input, Accumulator.Kahan));
        Add<TFormat, TInput, Float64Sum>(kernels, new Key(format, input, Accumulator.Float64));
    }

    private static void Add<TFormat, TInput, TSum>(Dictionary<Key, KernelDefinition<AccurateArgs>> kernels, Key key)
        where TFormat : struct, IWeightFormat
        where TInput : struct, IWeightFormat
        where TSum : struct, IAccumulator<TSum>
    {
        var traits = new KernelTraits(MostThreads, UsesFloat64: typeof(TSum) == typeof(Float64Sum));
        kernels.Add(key, new(AccurateGemv.Run<TFormat, TInput, TSum, Bf16Output, WarpLanes>, traits));
        kernels.Add(key with { Single = true }, new(AccurateGemv.Run<TFormat, TInput, TSum, Bf16Output, SingleLane>, traits));
        kernels.Add(key with { Float32 = true }, new(AccurateGemv.Run<TFormat, TInput, TSum, Float32Output, WarpLanes>, traits));
        kernels.Add(key with { Float32 = true, Single = true }, new(AccurateGemv.Run<TFormat, TInput, TSum, Float32Output, SingleLane>, traits));
    }
}
