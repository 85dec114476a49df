namespace GpuKit.Ilgpu.Models;

/// <summary>A stretch of a text.</summary>
/// <param name="Start">Its first character (UTF-16 unit).</param>
/// <param name="Length">Its length in characters (UTF-16 units).</param>
public readonly record struct TextStretch(int Start, int Length);
