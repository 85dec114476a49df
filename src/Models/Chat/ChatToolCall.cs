namespace GpuKit.Ilgpu.Models;

/// <summary>A call of a tool by the assistant.</summary>
/// <param name="Name">The tool's name.</param>
/// <param name="Arguments">Its arguments, a JSON object as text; rendered as it stands.</param>
public sealed record ChatToolCall(string Name, string Arguments);
