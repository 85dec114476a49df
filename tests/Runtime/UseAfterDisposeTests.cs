using System.Reflection;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Runtime;

/// <summary>
/// What was disposed says so, whatever it is asked to do. The list is checked against the public types by reflection: a new one, or a
/// new method of an old one, fails until it is here. Properties may answer or say so, too.
/// </summary>
public sealed class UseAfterDisposeTests
{
    private sealed record Case(IDisposable Object, Dictionary<string, Action> Calls, params IDisposable[] Others);

    private static readonly Dictionary<Type, Func<GpuDevice, Case>> Cases = new()
    {
        [typeof(GpuDevice)] = device =>
        {
            GpuDevice own = TestDevices.Open(device.IsCuda ? TestDevice.Cuda : TestDevice.Cpu);
            return new Case(own, new()
            {
                ["CreateStream"] = () => own.CreateStream(),
                ["CreateEvent"] = () => own.CreateEvent(),
                ["Allocate"] = () => own.Allocate<int>(1),
                ["Upload"] = () => own.Upload<int>([1]),
                ["AllocatePinned"] = () => own.AllocatePinned<int>(1),
                ["Synchronize"] = own.Synchronize,
            });
        },
        [typeof(DeviceBuffer<>)] = device =>
        {
            DeviceBuffer<int> buffer = device.Upload<int>([1, 2]);
            PinnedBuffer<int> pinned = device.AllocatePinned<int>(2);
            GpuStream stream = device.DefaultStream;
            return new Case(buffer, new()
            {
                ["CopyFrom"] = () => buffer.CopyFrom(stream, [1]),
                ["CopyTo"] = () => buffer.CopyTo(stream, new int[1]),
                ["CopyToPinned"] = () => buffer.CopyToPinned(stream, pinned),
                ["CopyFromPinned"] = () => buffer.CopyFromPinned(stream, pinned, 1),
                ["ToArray"] = () => buffer.ToArray(stream),
                ["Fill"] = () => buffer.Fill(stream, 0),
                ["op_Implicit"] = () => _ = ((ILGPU.ArrayView<int>)buffer).Length,
            }, pinned);
        },
        [typeof(PinnedBuffer<>)] = device => new Case(device.AllocatePinned<int>(1), []),
        [typeof(GpuEvent)] = device =>
        {
            GpuEvent point = device.CreateEvent(), other = device.CreateEvent();
            other.Record(device.DefaultStream);
            return new Case(point, new()
            {
                ["Record"] = () => point.Record(device.DefaultStream),
                ["Synchronize"] = point.Synchronize,
                ["MillisecondsSince"] = () => point.MillisecondsSince(other),
                ["as an argument"] = () => device.DefaultStream.WaitFor(point),
                ["as a start"] = () => other.MillisecondsSince(point),
            }, other);
        },
        [typeof(GpuStream)] = device =>
        {
            GpuStream stream = device.CreateStream();
            GpuEvent point = device.CreateEvent();
            DeviceBuffer<int> buffer = device.Upload<int>([1]);
            var sampler = new SamplerState(device, 4);
            return new Case(stream, new()
            {
                ["Synchronize"] = stream.Synchronize,
                ["WaitFor"] = () => stream.WaitFor(point),
                ["as an argument"] = () => buffer.ToArray(stream),
                ["as a launch's"] = () => DeviceCounter.Advance(stream, buffer, 1),
                ["as an event's"] = () => point.Record(stream),
                ["as a fill's"] = () => sampler.Reset(stream),
            }, point, buffer, sampler);
        },
        [typeof(QuantizedMatrix)] = device =>
        {
            HostMatrix host = Quantizer.Quantize(new float[64], 1, 64, WeightFormat.Fp8Block);
            QuantizedMatrix matrix = QuantizedMatrix.Upload(device, host);
            DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(new BFloat16[64]), y = device.Allocate<BFloat16>(1);
            return new Case(matrix, new()
            {
                ["Write"] = () => matrix.Write(0, 0, host),
                ["as an argument"] = () => Linear.Multiply(device.DefaultStream, matrix, x, y, 1),
            }, x, y);
        },
        [typeof(QuantizedActivations)] = device =>
        {
            var quantized = new QuantizedActivations(device, ActivationFormat.Fp8Group128, 1, 64);
            DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(new BFloat16[64]);
            return new Case(quantized, new() { ["as an argument"] = () => ActivationQuantizer.Quantize(device.DefaultStream, x, quantized, 1) }, x);
        },
        [typeof(ExpertMlpWorkspace)] = device =>
        {
            GpuDevice warps = TestDevices.Get(device.IsCuda ? TestDevice.Cuda : TestDevice.CpuWarp32);
            var workspace = new ExpertMlpWorkspace(warps, new ExpertMlpSize(1, 1, 1, 64, 64));
            QuantizedMatrix Matrix(int rows) => QuantizedMatrix.Upload(warps, Quantizer.Quantize(new float[64 * rows], rows, 64, WeightFormat.Bf16));
            var stack = new ExpertStack(Matrix(128), Matrix(64));
            DeviceBuffer<int> experts = warps.Upload<int>([0]);
            DeviceBuffer<float> weights = warps.Upload<float>([1]), residual = warps.Allocate<float>(64);
            DeviceBuffer<BFloat16> x = warps.Upload<BFloat16>(new BFloat16[64]);
            var routing = new TokenRouting(experts, weights, 1);
            return new Case(workspace, new() { ["as an argument"] = () => ExpertMlp.Apply(warps.DefaultStream, stack, routing, x, workspace, residual) }, stack.GateUp, stack.Down, experts, weights, residual, x);
        },
        [typeof(KvCache)] = device =>
        {
            var cache = new KvCache(device, 1, 1, 64, 4);
            return new Case(cache, new() { ["Keys"] = () => cache.Keys(0), ["Values"] = () => cache.Values(0), ["Layer"] = () => cache.Layer(0) });
        },
        [typeof(RotaryTable)] = device =>
        {
            var table = new RotaryTable(device, 64, 4, 10_000);
            DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(new BFloat16[64]);
            DeviceBuffer<int> position = device.Upload<int>([0]);
            return new Case(table, new() { ["as an argument"] = () => Rotary.Apply(device.DefaultStream, x, table, position, 1, 1) }, x, position);
        },
        [typeof(SamplerState)] = device =>
        {
            var state = new SamplerState(device, 4);
            DeviceBuffer<int> token = device.Upload<int>([0]);
            DeviceBuffer<float> logits = device.Upload<float>(new float[4]);
            return new Case(state, new()
            {
                ["Reset"] = () => state.Reset(device.DefaultStream),
                ["MarkSeen"] = () => state.MarkSeen(device.DefaultStream, token),
                ["as an argument"] = () => Sampler.Sample(device.DefaultStream, logits, state, SamplingOptions.Greedy, token),
            }, token, logits);
        },
        [typeof(Qwen3Moe)] = device =>
        {
            Qwen3Moe model = ModelDevices.LoadTiny(device);
            var session = new Qwen3Session(model, 4);
            return new Case(model, new() { ["through a session"] = () => session.Prefill([1]) }, session);
        },
        [typeof(Qwen3Session)] = device =>
        {
            Qwen3Moe model = ModelDevices.LoadTiny(device);
            var session = new Qwen3Session(model, 4);
            session.Prefill([1]);
            return new Case(session, new()
            {
                ["Truncate"] = () => session.Truncate(0),
                ["Prefill"] = () => session.Prefill([1]),
                ["PrefillWithLogits"] = () => session.PrefillWithLogits([1], _ => { }),
                ["StartSampling"] = () => session.StartSampling(SamplingOptions.Greedy, []),
                ["Next"] = () => session.Next(),
            }, model);
        },
        [typeof(Qwen3BatchSession)] = device =>
        {
            Qwen3Moe model = Qwen3Moe.Load(device, RepositoryFolder.TinyModel);
            var batch = new Qwen3BatchSession(model, 2, 4);
            return new Case(batch, new()
            {
                ["Tokens"] = () => batch.Tokens(0),
                ["IsRunning"] = () => batch.IsRunning(0),
                ["IsFull"] = () => batch.IsFull(0),
                ["Truncate"] = () => batch.Truncate(0, 0),
                ["Prefill"] = () => batch.Prefill(0, [1]),
                ["StartSampling"] = () => batch.StartSampling(0, SamplingOptions.Greedy, []),
                ["Stop"] = () => batch.Stop(0),
                ["Next"] = () => batch.Next(new int[2]),
            }, model);
        },
        [typeof(LanguageModel)] = device =>
        {
            LanguageModel model = LanguageModel.Load(device, RepositoryFolder.TinyModel);
            var generator = new TextGenerator(model, 4);
            return new Case(model, new() { ["through a generator"] = () => Ask(generator) }, generator);
        },
        [typeof(TextGenerator)] = device =>
        {
            LanguageModel model = LanguageModel.Load(device, RepositoryFolder.TinyModel);
            var generator = new TextGenerator(model, 4);
            return new Case(generator, new() { ["Clear"] = generator.Clear, ["GenerateAsync"] = () => Ask(generator) }, model);
        },
        [typeof(Checkpoint)] = _ =>
        {
            Checkpoint checkpoint = Checkpoint.Open(RepositoryFolder.TinyModel);
            return new Case(checkpoint, new() { ["Bytes"] = () => checkpoint.Bytes("model.norm.weight") });
        },
        [typeof(SafetensorsFile)] = _ =>
        {
            SafetensorsFile file = SafetensorsFile.Open(Path.Combine(RepositoryFolder.TinyModel, "model.safetensors"));
            return new Case(file, new() { ["Bytes"] = () => file.Bytes(file.Tensors.Values.First()) });
        },
        [typeof(SafetensorsOutput)] = _ =>
        {
            var folder = new TemporaryFolder();
            SafetensorsOutput output = SafetensorsOutput.Create(folder.File("x"), [new TensorDeclaration("a", TensorType.BF16, [1])]);
            return new Case(output, new() { ["Write"] = () => output.Write("a", [0, 0]), ["Complete"] = output.Complete }, folder);
        },
    };

    // Need no device memory: they answer from what the object read when it was made.
    private static readonly HashSet<string> Answers = ["LanguageModel.DefaultSampling", "TextGenerator.RequireRoom", "Checkpoint.Contains", "Checkpoint.Info"];

    public static TheoryData<TestDevice, string> Types => ModelDevices.With(Cases.Keys.Select(type => type.Name));

    [Fact]
    public void EveryPublicTypeThatIsDisposedIsTested()
    {
        Assembly[] rooms = [typeof(GpuDevice).Assembly, typeof(Linear).Assembly, typeof(Qwen3Moe).Assembly];
        IEnumerable<string> types = rooms.SelectMany(room => room.GetExportedTypes()).Where(t => t.IsClass && t.IsAssignableTo(typeof(IDisposable))).Select(t => t.Name);
        // A graph is of cards only: the test below.
        Assert.Equal(types.Order(), Cases.Keys.Select(t => t.Name).Append(nameof(GpuGraph)).Order());
    }

    [Theory]
    [MemberData(nameof(Types))]
    public void WhatIsDisposedSaysSo(TestDevice which, string type)
    {
        GpuDevice device = TestDevices.Get(which);
        Case made = Cases.Single(c => c.Key.Name == type).Value(device);
        try
        {
            made.Object.Dispose();
            made.Object.Dispose();
            foreach (string method in Methods(made.Object.GetType()).Except(made.Calls.Keys))
                Assert.Contains($"{made.Object.GetType().Name}.{method}", Answers);
            foreach ((string name, Action call) in made.Calls)
                Assert.True(Record.Exception(call) is ObjectDisposedException, $"{type}: {name} after Dispose gives {Record.Exception(call)?.ToString() ?? "no exception"}.");
            foreach (PropertyInfo property in made.Object.GetType().GetProperties(BindingFlags.Public | BindingFlags.Instance).Where(p => !p.PropertyType.IsByRefLike))
                Assert.True(Record.Exception(() => property.GetValue(made.Object)) is null or TargetInvocationException { InnerException: ObjectDisposedException }, $"{type}.{property.Name}");
        }
        finally
        {
            foreach (IDisposable other in made.Others)
                other.Dispose();
        }
    }

    [Fact]
    public void AGraphThatIsDisposedSaysSo()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        using GpuStream stream = device.CreateStream();
        using DeviceBuffer<int> counter = device.Upload<int>([0]);
        DeviceCounter.Advance(stream, counter, 1);
        GpuGraph graph = GpuGraph.Capture(stream, () => DeviceCounter.Advance(stream, counter, 1));
        graph.Dispose();
        graph.Dispose();
        Assert.Throws<ObjectDisposedException>(() => graph.Replay(stream));
    }

    private static IEnumerable<string> Methods(Type type) => type
        .GetMethods(BindingFlags.Public | BindingFlags.Instance | BindingFlags.DeclaredOnly)
        .Where(m => !m.IsSpecialName && m.Name is not (nameof(IDisposable.Dispose) or nameof(ToString)))
        .Select(m => m.Name).Distinct();

    private static void Ask(TextGenerator generator) =>
        generator.GenerateAsync([1], new GenerationOptions { MaxTokens = 1 }, CancellationToken.None).ToListAsync(CancellationToken.None).AsTask().GetAwaiter().GetResult();
}
