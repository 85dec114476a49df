namespace GpuKit.Ilgpu.Models;

/// <summary>How a conversation is rendered.</summary>
public sealed record ChatOptions
{
    /// <summary>Whether the rendering ends with the opening of the assistant's answer.</summary>
    public bool AddGenerationPrompt { get; init; } = true;

    /// <summary>
    /// Whether a model that can think should; null leaves it to the template. A template without this switch (plain, or
    /// thinking always) ignores it, as Hugging Face does.
    /// </summary>
    public bool? EnableThinking { get; init; }

    /// <summary>The tools on offer, each a JSON object as text (<c>{"type": "function", "function": {…}}</c>).</summary>
    public IReadOnlyList<string> Tools { get; init; } = [];
}
