using System.Runtime.InteropServices;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>The tensors of one small run of an operator: what it reads, and what it writes and how that started.</summary>
/// <param name="device">Where they lie.</param>
/// <param name="stranger">Another device, where the tensor numbered <paramref name="strange"/> lies instead.</param>
/// <param name="strange">A tensor by the order of being made, or −1.</param>
internal sealed class CaseTensors(GpuDevice device, GpuDevice? stranger = null, int strange = -1) : IDisposable
{
    private readonly List<IDisposable> owned = [];
    private readonly List<Action<GpuStream>> resets = [];
    private readonly List<Func<GpuStream, byte[]>> results = [];

    /// <summary>Where most tensors lie.</summary>
    public GpuDevice Device => device;

    /// <summary>Tensors so far.</summary>
    public int Count { get; private set; }

    /// <summary>What is only read.</summary>
    public ArrayView<T> Input<T>(T[] contents)
        where T : unmanaged => Own(Next().Upload<T>(contents));

    /// <summary>Gaussian BF16 numbers, only read.</summary>
    public ArrayView<BFloat16> Halves(int count, int seed = 1) => Input(RandomData.GaussianBf16(count, seed));

    /// <summary>Gaussian float32 numbers, only read.</summary>
    public ArrayView<float> Floats(int count, int seed = 1) => Input(RandomData.Gaussian(count, seed));

    /// <summary>What is only written, NaN before.</summary>
    public ArrayView<T> Output<T>(int count)
        where T : unmanaged => Written(Own(Next().Allocate<T>(count)), null);

    /// <summary>What is read and written.</summary>
    public ArrayView<T> Changed<T>(T[] contents)
        where T : unmanaged => Written(Own(Next().Upload<T>(contents)), contents);

    /// <summary>Random weights; all matrices of a stack are alike.</summary>
    public QuantizedMatrix Matrix(WeightFormat format, int n, int k, int count = 1, ScaleBlock? block = null)
    {
        HostMatrix host = Quantizer.Quantize(RandomData.Gaussian(n * k, 7, 1 / MathF.Sqrt(k)), n, k, format, block);
        QuantizedMatrix matrix = Own(new QuantizedMatrix(Next(), format, n, k, count, block));
        for (int i = 0; i < count; i++)
            matrix.Write(i, 0, host);
        return matrix;
    }

    /// <summary>Weights to be written.</summary>
    public QuantizedMatrix WrittenMatrix(WeightFormat format, int n, int k)
    {
        QuantizedMatrix matrix = Own(new QuantizedMatrix(Next(), format, n, k));
        Written(matrix.Codes, null);
        Written(matrix.Scales, null);
        Written(matrix.GroupScales, null);
        Written(matrix.ZeroPoints, null);
        return matrix;
    }

    /// <summary>Activations to be written.</summary>
    public QuantizedActivations Activations(ActivationFormat format, int rows, int k)
    {
        QuantizedActivations activations = Own(new QuantizedActivations(Next(), format, rows, k));
        Written(activations.Codes, null);
        Written(activations.Scales, null);
        Written(activations.GroupScales, null);
        return activations;
    }

    /// <summary>What the experts of a few tokens need besides.</summary>
    public ExpertMlpWorkspace ExpertMlp(ExpertMlpSize size) => Own(new ExpertMlpWorkspace(Next(), size));

    /// <summary>A cache of one layer with random contents.</summary>
    public KvCache Cache(int kvHeads, int headDim, int capacity, KvCacheFormat format = KvCacheFormat.Bf16)
    {
        KvCache cache = Own(new KvCache(Next(), 1, kvHeads, headDim, capacity, format));
        if (format == KvCacheFormat.Fp8)
        {
            KvCodes codes = cache.Layer(0).Codes;
            Contents(codes.Keys, [.. Enumerable.Range(0, (int)codes.Keys.Length).Select(i => (byte)((i * 37) & 0xBF))]);
            Contents(codes.Values, [.. Enumerable.Range(0, (int)codes.Values.Length).Select(i => (byte)((i * 91) & 0xBF))]);
            Contents(codes.KeyScales, [.. Enumerable.Range(0, (int)codes.KeyScales.Length).Select(i => 1f / (i + 50))]);
            Contents(codes.ValueScales, [.. Enumerable.Range(0, (int)codes.ValueScales.Length).Select(i => 1f / (i + 70))]);
            return cache;
        }
        foreach ((ArrayView<BFloat16> part, int seed) in new[] { (cache.Keys(0), 11), (cache.Values(0), 12) })
        {
            BFloat16[] contents = RandomData.GaussianBf16((int)part.Length, seed);
            Add(_ => CacheContents.Write(part, contents), _ => MemoryMarshal.AsBytes(CacheContents.Read(part).AsSpan()).ToArray());
        }
        return cache;
    }

    private void Contents<T>(ArrayView<T> view, T[] contents)
        where T : unmanaged => Add(_ => CacheContents.Write(view, contents), _ => MemoryMarshal.AsBytes(CacheContents.Read(view).AsSpan()).ToArray());

    /// <summary>The angles of a cache's positions.</summary>
    public RotaryTable Rotary(int headDim, int positions) => Own(new RotaryTable(Next(), headDim, positions, 10_000));

    /// <summary>A sampler that restarts with every reset.</summary>
    public SamplerState Sampler(int vocabulary)
    {
        SamplerState state = Own(new SamplerState(Next(), vocabulary));
        resets.Add(state.Reset);
        return state;
    }

    /// <summary>Disposed with the tensors.</summary>
    public T Own<T>(T resource)
        where T : IDisposable
    {
        owned.Add(resource);
        return resource;
    }

    /// <summary>Gives everything that is written its first contents.</summary>
    public void Reset(GpuStream stream)
    {
        resets.ForEach(reset => reset(stream));
        device.Synchronize();
    }

    /// <summary>The bytes of everything that is written.</summary>
    public byte[][] Results(GpuStream stream)
    {
        stream.Synchronize();
        return [.. results.Select(read => read(stream))];
    }

    public void Dispose()
    {
        device.Synchronize();
        owned.ForEach(resource => resource.Dispose());
    }

    private GpuDevice Next() => Count++ == strange ? stranger! : device;

    private DeviceBuffer<T> Written<T>(DeviceBuffer<T> buffer, T[]? first)
        where T : unmanaged
    {
        // What is only written starts as its device leaves it: a NaN, or not at all for a tool that looks for reads of that.
        Add(stream =>
        {
            if (first is not null)
                buffer.CopyFrom(stream, first);
            else if (GuardingAllocator.IsOn)
                buffer.Fill(stream, 0xFF);
        }, stream => MemoryMarshal.AsBytes(buffer.ToArray(stream).AsSpan()).ToArray());
        return buffer;
    }

    private void Add(Action<GpuStream> reset, Func<GpuStream, byte[]> result)
    {
        if (strange < 0)
            reset(device.DefaultStream);
        resets.Add(reset);
        results.Add(result);
    }
}

/// <summary>A small run of an operator.</summary>
/// <param name="Name">Operator, format and shape.</param>
/// <param name="Prepare">Makes the tensors and returns what launches.</param>
internal sealed record SmallCase(string Name, Func<CaseTensors, Action<GpuStream>> Prepare);
