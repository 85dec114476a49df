namespace GpuKit.Ilgpu.Tests.Oracle;

/// <summary>The extents and switches of a Qwen3-MoE network that its arithmetic depends on.</summary>
public record Qwen3Shape
{
    public int Hidden { get; init; } = 64;

    public int Layers { get; init; } = 2;

    public int QueryHeads { get; init; } = 4;

    public int KeyValueHeads { get; init; } = 2;

    public int HeadDim { get; init; } = 16;

    public int Experts { get; init; } = 4;

    public int ExpertsPerToken { get; init; } = 2;

    public int ExpertWidth { get; init; } = 48;

    public int DenseWidth { get; init; } = 80;

    public int Vocabulary { get; init; } = 96;

    public bool NormTopkProb { get; init; } = true;

    public bool TiedHead { get; init; }

    public int SparseStep { get; init; } = 1;

    public int[] DenseLayers { get; init; } = [];

    public double Epsilon { get; init; } = 1e-6;

    public double RopeTheta { get; init; } = 10_000;
}
