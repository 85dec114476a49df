using BenchmarkDotNet.Attributes;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Bench;

/// <summary>What reading a model folder and a prompt costs.</summary>
/// <remarks>Public because BenchmarkDotNet derives from it in an assembly of its own.</remarks>
public class HostBenchFiles
{
    private const string Text = "In the beginning God created the heaven and the earth. And the earth was without form, and void; "
        + "and darkness was upon the face of the deep. And the Spirit of God moved upon the face of the waters.";

    private string folder = "";
    private Tokenizer tokenizer = null!;

    /// <summary>Loads the tokenizer.</summary>
    [GlobalSetup]
    public void Setup()
    {
        folder = HostBench.Options.Model;
        tokenizer = Tokenizer.Load(folder);
    }

    /// <summary>About forty words to ids.</summary>
    [Benchmark]
    public object TokenizerEncode() => tokenizer.Encode(Text);

    /// <summary>Reading tokenizer.json.</summary>
    [Benchmark]
    public object TokenizerLoad() => Tokenizer.Load(folder);

    /// <summary>Mapping the weights and checking their header; no weight is read.</summary>
    [Benchmark]
    public int CheckpointOpen()
    {
        using Checkpoint checkpoint = Checkpoint.Open(folder);
        return checkpoint.Names.Count;
    }
}
