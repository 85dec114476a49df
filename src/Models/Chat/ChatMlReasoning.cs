namespace GpuKit.Ilgpu.Models;

/// <summary>How Qwen3's templates find the thoughts of an assistant's message and decide which ones are still shown.</summary>
internal static class ChatMlReasoning
{
    private const string Open = "<think>";
    private const string Close = "</think>";

    /// <summary>The index of the last message in which a user asks, not counting tool answers in a user's clothes; the last index when nobody does.</summary>
    public static int LastQuery(IReadOnlyList<ChatMessage> messages)
    {
        for (int i = messages.Count - 1; i >= 0; i--)
        {
            string content = messages[i].Content;
            bool answersTool = content.StartsWith("<tool_response>", StringComparison.Ordinal)
                && content.EndsWith("</tool_response>", StringComparison.Ordinal);
            if (messages[i].Role == ChatRole.User && !answersTool)
            {
                return i;
            }
        }

        return messages.Count - 1;
    }

    /// <summary>Thoughts and answer of a message.</summary>
    public static (string Reasoning, string Content) Split(ChatMessage message)
    {
        string content = message.Content;
        int firstClose = content.IndexOf(Close, StringComparison.Ordinal);
        if (message.Reasoning is not null || firstClose < 0)
        {
            return (message.Reasoning ?? "", content);
        }

        string before = content[..firstClose].TrimEnd('\n');
        int open = before.LastIndexOf(Open, StringComparison.Ordinal);
        string reasoning = before[(open < 0 ? 0 : open + Open.Length)..].TrimStart('\n');
        int lastClose = content.LastIndexOf(Close, StringComparison.Ordinal);
        return (reasoning, content[(lastClose + Close.Length)..].TrimStart('\n'));
    }
}
