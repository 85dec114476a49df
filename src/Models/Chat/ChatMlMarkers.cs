using System.Text.RegularExpressions;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Tells the members of the ChatML family apart by what their templates' texts contain, and refuses a template that does more
/// than the renderer: rendering it would be wrong silently. The expressions are this library's; the template is only text.
/// </summary>
internal static partial class ChatMlMarkers
{
    private const string SystemOpening = @"<|im_start|>system\n";
    private const string Closing = "<|im_end|>";

    private static readonly (string Marker, string Meaning)[] Foreign =
    [
        ("<function=", "tool calls written as XML"),
        ("<|vision_start|>", "pictures in messages"),
        ("<|image_pad|>", "pictures in messages"),
        ("<|tool_list_start|>", "another format of tools"),
        ("<|im_sep|>", "another separator of role and content"),
        ("strftime", "the current date"),
        ("raise_exception", "conditions on the messages"),
        ("bos_token", "a token at the start"),
        ("|trim", "trimmed messages"),
        ("| trim", "trimmed messages"),
        (".strip()", "trimmed messages"),
    ];

    /// <summary>The style of a template, or the refusal of one that is not of the family.</summary>
    public static ChatMl Read(string template, string fileName)
    {
        // A line end within a string of the template is written as backslash and n, or as it is; from here on as the former.
        string text = template.Replace("\r\n", "\n", StringComparison.Ordinal).Replace("\n", @"\n", StringComparison.Ordinal);
        if (!text.Contains("<|im_start|>", StringComparison.Ordinal) || !text.Contains(Closing, StringComparison.Ordinal))
        {
            throw Refused(fileName, $"\"{Excerpt.Of(template)}\" is not of the ChatML family (no <|im_start|> and <|im_end|>)");
        }

        foreach ((string marker, string meaning) in Foreign)
        {
            if (text.Contains(marker, StringComparison.Ordinal))
            {
                throw Refused(fileName, $"uses '{marker}' ({meaning}), which is not supported");
            }
        }

        ChatThinking thinking = Thinking(text, fileName);
        return new ChatMl
        {
            Thinking = thinking,
            SplitsReasoning = SplitsReasoning(text, thinking, fileName),
            DefaultSystem = DefaultSystem(text, fileName),
            HasTools = text.Contains("<tool_call>", StringComparison.Ordinal) && text.Contains("<tools>", StringComparison.Ordinal),
        };
    }

    private static ChatThinking Thinking(string text, string fileName)
    {
        bool always = AlwaysThinks().IsMatch(text);
        if (!text.Contains("enable_thinking", StringComparison.Ordinal))
        {
            return always ? ChatThinking.Always : ChatThinking.None;
        }

        // The hybrid form writes an empty thought when thinking is off and nothing when it is on.
        if (always || OpensThought().IsMatch(text) || !text.Contains(@"<think>\n\n</think>\n\n", StringComparison.Ordinal))
        {
            throw Refused(fileName, "uses 'enable_thinking' in another way than Qwen3, which is not supported");
        }

        return ChatThinking.Switchable;
    }

    private static bool SplitsReasoning(string text, ChatThinking thinking, string fileName)
    {
        bool asQwen3 = text.Contains("last_query_index", StringComparison.Ordinal)
            && text.Contains("{%- if loop.last or (not loop.last and reasoning_content) %}", StringComparison.Ordinal);
        bool handled = thinking == ChatThinking.Switchable
            ? text.Split("</think>").Length > 2
            : text.Contains("</think>", StringComparison.Ordinal);
        return asQwen3 || !handled
            ? asQwen3
            : throw Refused(fileName, "treats the thoughts of earlier turns ('</think>') in another way than Qwen3, which is not supported");
    }

    // The opening is followed by a closing quote where a message is put in, and by text where the template has its own prompt.
    private static string? DefaultSystem(string text, string fileName)
    {
        for (int at = 0; (at = text.IndexOf(SystemOpening, at, StringComparison.Ordinal)) >= 0;)
        {
            at += SystemOpening.Length;
            int end = text.IndexOf(Closing, at, StringComparison.Ordinal);
            if (at == text.Length || text[at] is '\'' or '"')
            {
                continue;
            }

            string prompt = end < 0 ? "'" : text[at..end].Replace(@"\n", "\n", StringComparison.Ordinal);
            return prompt.AsSpan().IndexOfAny("'\"\\{}") < 0
                ? prompt
                : throw Refused(fileName, "puts a default system prompt together from parts, which is not supported");
        }

        return null;
    }

    [GeneratedRegex(@"<\|im_start\|>assistant\\n<think>(\\n)?['""]\s*-?\}\}")]
    private static partial Regex AlwaysThinks();

    [GeneratedRegex(@"\{\{-?\s*['""]<think>(\\n)?['""]")]
    private static partial Regex OpensThought();

    private static ModelFileException Refused(string fileName, string problem) =>
        new(fileName, $"the chat template {problem}; supply a renderer for this model");
}
