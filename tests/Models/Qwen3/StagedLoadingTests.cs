using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models.Qwen3;

/// <summary>Loading through staging buffers: the file's bytes on the device, whatever lies across a buffer's end, and nothing left behind.</summary>
[Collection(ModelDevices.Collection)]
public sealed class StagedLoadingTests(ModelDevices devices)
{
    private const string Up = "model.layers.1.mlp.experts.3.up_proj.weight", Head = "lm_head.weight";

    public static TheoryData<TestDevice, int> Stagings => ModelDevices.With<int>([64, 1000, 6144, 1 << 20]);

    public static TheoryData<TestDevice, string> Formats => ModelDevices.With(CheckpointFormat.All.Select(f => f.Name));

    // Codes of q, k, v are 4,096, 2,048 and 2,048 bytes, the head's 12,288: within a staging buffer, as long as one, longer.
    [Theory]
    [MemberData(nameof(Stagings))]
    public void The_device_holds_the_files_bytes(TestDevice device, int staging)
    {
        GpuDevice open = devices.Open(device);
        using var folder = new GeneratedCheckpoint(new CheckpointShape { Block = (32, 32) });
        using Checkpoint checkpoint = Checkpoint.Open(folder.Folder);
        using var loader = new WeightLoader(open, checkpoint, Qwen3MoeConfig.Load(folder.Folder), new LoadOptions { StagingBytes = staging }, TestContext.Current.CancellationToken);
        string[] projections = ["q", "k", "v"];
        string[] names = [.. projections.Select(p => $"model.layers.0.self_attn.{p}_proj.weight")];
        using QuantizedMatrix head = loader.Matrix(Head, 96, 64);
        using FusedLinear fused = loader.Fused(64, [.. names.Select(n => (n, (int)checkpoint.Info(n).Shape[0]))]);
        using DeviceBuffer<BFloat16> norm = loader.Gain("model.norm.weight", 64);
        loader.Complete();
        Assert.Equal(checkpoint.Bytes(Head), head.Codes.ToArray(open.DefaultStream));
        Assert.Equal(checkpoint.Bytes("model.norm.weight"), MemoryMarshal.AsBytes(norm.ToArray(open.DefaultStream).AsSpan()));
        QuantizedMatrix matrix = fused.Single!;
        Assert.Equal(names.SelectMany(n => checkpoint.Bytes(n).ToArray()), matrix.Codes.ToArray(open.DefaultStream));
        Assert.Equal(names.SelectMany(n => MemoryMarshal.Cast<byte, float>(checkpoint.Bytes(n + "_scale_inv")).ToArray()), matrix.Scales.ToArray(open.DefaultStream));
    }

    [Theory]
    [MemberData(nameof(Formats))]
    public void Staged_and_direct_loads_give_the_same_bits(TestDevice device, string format)
    {
        GpuDevice open = devices.Open(device);
        using var source = new GeneratedCheckpoint(new CheckpointShape { Block = null, Hidden = 70, HeadDim = 6, ExpertWidth = 49, DenseWidth = 151, Vocabulary = 97, DenseLayers = [0] });
        using var folder = new TemporaryFolder();
        CheckpointQuantizer.Quantize(source.Folder, folder.File("out"), CheckpointFormat.Parse(format), cancellation: TestContext.Current.CancellationToken);
        foreach (bool toBf16 in (bool[])[false, true])
        {
            using Qwen3Moe direct = Load(0);
            foreach (int staging in (int[])[64, 1000, 100_000])
            {
                using Qwen3Moe staged = Load(staging);
                Assert.All(Matrices(direct).Zip(Matrices(staged)), pair => Same(pair.First, pair.Second));
                Assert.Equal(direct.FinalNorm.ToArray(open.DefaultStream), staged.FinalNorm.ToArray(open.DefaultStream));
            }
            Assert.Equal(0, open.Ledger.PinnedBytes);

            Qwen3Moe Load(int staging) => Qwen3Moe.Load(open, folder.File("out"), new LoadOptions { DequantizeToBf16 = toBf16, BytesAtOnce = 1000, StagingBytes = staging, BytesMapped = 3000 }, TestContext.Current.CancellationToken);
        }

        void Same(QuantizedMatrix a, QuantizedMatrix b)
        {
            GpuStream stream = open.DefaultStream;
            Assert.Equal(a.Codes.ToArray(stream), b.Codes.ToArray(stream));
            Assert.Equal(a.Scales.ToArray(stream), b.Scales.ToArray(stream));
            Assert.Equal(a.GroupScales.ToArray(stream), b.GroupScales.ToArray(stream));
            Assert.Equal(a.ZeroPoints.ToArray(stream), b.ZeroPoints.ToArray(stream));
        }
    }

    [Theory]
    [MemberData(nameof(ModelDevices.All), MemberType = typeof(ModelDevices))]
    public void A_NaN_is_named_by_its_row_and_column_wherever_a_buffer_ends(TestDevice device)
    {
        GpuDevice open = devices.Open(device);
        foreach ((string name, int row, int column, int width, byte[] bits) in ((string, int, int, int, byte[])[])
            [(Up, 0, 0, 1, [0x7F]), (Up, 1, 63, 1, [0xFF]), (Up, 47, 63, 1, [0x7F]), (Head, 0, 31, 2, [0x81, 0x7F]), (Head, 0, 32, 2, [0xC0, 0xFF]), (Head, 95, 63, 2, [0xFF, 0xFF])])
        {
            using var folder = new GeneratedCheckpoint(new CheckpointShape(), t => bits.CopyTo(t[name].Bytes.AsSpan(((row * 64) + column) * width)));
            foreach (int staging in (int[])[64, 1000, 1 << 20])
            {
                (long, long) before = (open.Ledger.LiveBytes, open.Ledger.LiveBuffers);
                string message = Assert.Throws<ModelFileException>(() => folder.Load(open, new LoadOptions { StagingBytes = staging })).Message;
                Assert.Contains($"'{name}': the weight at row {row}, column {column} is NaN", message, StringComparison.Ordinal);
                Assert.Equal((before, 0), ((open.Ledger.LiveBytes, open.Ledger.LiveBuffers), open.Ledger.PinnedBytes));
            }
        }
    }

    [Theory]
    [MemberData(nameof(Stagings))]
    public void Cancelling_at_any_point_returns_all_memory(TestDevice device, int staging)
    {
        GpuDevice open = devices.Open(device);
        using var folder = new GeneratedCheckpoint(new CheckpointShape { Bf16Scales = true });
        (long, long) before = (open.Ledger.LiveBytes, open.Ledger.LiveBuffers);
        var seen = new List<LoadProgress>();
        Load(seen.Add, CancellationToken.None).Dispose();
        Assert.Equal((0, folder.Bytes), (seen.Count(p => p.TotalBytes != folder.Bytes), seen[^1].LoadedBytes));
        // Embedding and head are read in parts of 1,000 bytes.
        Assert.InRange(seen.Count(p => p.Current == Head), 12, 14);
        Assert.All(seen.Zip(seen.Skip(1)), pair => Assert.True(pair.First.LoadedBytes < pair.Second.LoadedBytes));
        Assert.Equal(TimeSpan.Zero, seen[^1].TimeLeft);
        for (int at = 0; at < seen.Count - 1; at += 7)
        {
            using var stop = new CancellationTokenSource();
            int reports = 0, stopAt = at;
            Assert.Throws<OperationCanceledException>(() => Load(
                _ =>
                {
                    if (reports++ == stopAt)
                        stop.Cancel();
                },
                stop.Token));
            Assert.Equal(stopAt + 1, reports);
            Assert.Equal((before, 0), ((open.Ledger.LiveBytes, open.Ledger.LiveBuffers), open.Ledger.PinnedBytes));
        }

        Qwen3Moe Load(Action<LoadProgress> report, CancellationToken cancellation)
        {
            var options = new LoadOptions { StagingBytes = staging, BytesAtOnce = 1000, Progress = new Reports(report) };
            return Qwen3Moe.Load(open, folder.Folder, options, cancellation);
        }
    }

    [Theory]
    [MemberData(nameof(ModelDevices.All), MemberType = typeof(ModelDevices))]
    public void Memory_that_runs_out_anywhere_leaves_nothing_behind(TestDevice device)
    {
        GpuDevice open = devices.Open(device);
        GuardingAllocator memory = GuardingAllocator.Of(open);
        using var folder = new GeneratedCheckpoint(new CheckpointShape());
        var options = new LoadOptions { StagingBytes = 1000 };
        (long, long) before = (open.Ledger.LiveBytes, open.Ledger.LiveBuffers);
        long start = memory.Allocations;
        folder.Load(open, options).Dispose();
        int needed = (int)(memory.Allocations - start);
        Assert.InRange(needed, 40, 1000);
        for (int n = 0; n < needed; n++)
        {
            memory.FailAfter(n);
            try
            {
                Assert.Equal(GpuFault.OutOfMemory, Assert.Throws<GpuException>(() => folder.Load(open, options)).Fault);
            }
            finally
            {
                memory.FailAfter(null);
            }
            Assert.Equal((before, 0), ((open.Ledger.LiveBytes, open.Ledger.LiveBuffers), open.Ledger.PinnedBytes));
        }
    }

    [Fact]
    public void A_failing_report_leaves_nothing_behind()
    {
        GpuDevice open = devices.Open(TestDevice.Cpu);
        using var folder = new GeneratedCheckpoint(new CheckpointShape());
        (long, long) before = (open.Ledger.LiveBytes, open.Ledger.LiveBuffers);
        int reports = 0;
        var failing = new Reports(_ =>
        {
            if (++reports == 20)
                throw new InvalidOperationException();
        });
        Assert.Throws<InvalidOperationException>(() => folder.Load(open, new LoadOptions { StagingBytes = 256, Progress = failing }));
        Assert.Equal((before, 0), ((open.Ledger.LiveBytes, open.Ledger.LiveBuffers), open.Ledger.PinnedBytes));
    }

    private static IEnumerable<QuantizedMatrix> Matrices(Qwen3Moe model)
    {
        yield return model.Embedding;
        yield return model.Head;
        foreach (Qwen3Layer layer in model.Layers)
        {
            foreach (FusedLinear linear in (FusedLinear[])[layer.QueryKeyValue, layer.Output, layer.GateUp, layer.Down])
                foreach (QuantizedMatrix matrix in linear.Matrices)
                    yield return matrix;
        }
    }

    private sealed class Reports(Action<LoadProgress> report) : IProgress<LoadProgress>
    {
        public void Report(LoadProgress value) => report(value);
    }
}
