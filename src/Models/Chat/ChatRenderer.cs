namespace GpuKit.Ilgpu.Models;

/// <summary>Renders a conversation the way a model was trained on it.</summary>
/// <param name="output">Where the rendering goes.</param>
/// <param name="messages">The conversation.</param>
/// <param name="options">How to render it.</param>
public delegate void ChatRenderer(ChatText output, IReadOnlyList<ChatMessage> messages, ChatOptions options);
