namespace GpuKit.Ilgpu.Models;

/// <summary>How far an evaluation has come.</summary>
/// <param name="Done">Prompts that are finished.</param>
/// <param name="Total">All prompts.</param>
/// <param name="Current">What was just finished.</param>
public readonly record struct EvaluationProgress(int Done, int Total, string Current);
