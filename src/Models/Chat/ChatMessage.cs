namespace GpuKit.Ilgpu.Models;

/// <summary>One message of a conversation.</summary>
/// <param name="Role">One of <see cref="ChatRole"/>.</param>
/// <param name="Content">Its text. Special tokens in it are never control tokens of the model.</param>
public sealed record ChatMessage(string Role, string Content)
{
    /// <summary>
    /// What an assistant thought before it answered. When null, thinking templates look for it in the content, before
    /// <c>&lt;/think&gt;</c>; other templates leave it out.
    /// </summary>
    public string? Reasoning { get; init; }

    /// <summary>The tools an assistant called.</summary>
    public IReadOnlyList<ChatToolCall> ToolCalls { get; init; } = [];
}
