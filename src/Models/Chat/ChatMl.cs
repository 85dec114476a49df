namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Renders the ChatML family: <c>&lt;|im_start|&gt;role\ncontent&lt;|im_end|&gt;\n</c> for every message. The members differ
/// in how they treat thinking, tools and a missing system prompt.
/// </summary>
internal sealed class ChatMl
{
    public ChatThinking Thinking { get; init; }

    /// <summary>Whether thoughts are told from answers in earlier turns, and only those since the last question are shown.</summary>
    public bool SplitsReasoning { get; init; }

    /// <summary>The system prompt of a conversation that has none; null for no system turn.</summary>
    public string? DefaultSystem { get; init; }

    public bool HasTools { get; init; }

    public string Family => (Thinking, DefaultSystem) switch
    {
        (ChatThinking.Switchable, _) => "qwen3-hybrid",
        (ChatThinking.Always, _) => "qwen3-thinking",
        (_, not null) => "qwen2.5",
        _ => "chatml",
    };

    public void Render(ChatText output, IReadOnlyList<ChatMessage> messages, ChatOptions options)
    {
        Check(messages, options);
        RenderSystem(output, messages[0], options);
        int lastQuery = ChatMlReasoning.LastQuery(messages);
        for (int i = messages[0].Role == ChatRole.System ? 1 : 0; i < messages.Count; i++)
        {
            switch (messages[i].Role)
            {
                case ChatRole.Assistant:
                    RenderAssistant(output, messages[i], afterQuery: i > lastQuery, isLast: i == messages.Count - 1);
                    break;
                case ChatRole.Tool when HasTools:
                    RenderToolAnswer(
                        output,
                        messages[i],
                        first: i == 0 || messages[i - 1].Role != ChatRole.Tool,
                        last: i == messages.Count - 1 || messages[i + 1].Role != ChatRole.Tool);
                    break;
                default:
                    output.Template($"<|im_start|>{messages[i].Role}\n").Content(messages[i].Content).Template("<|im_end|>\n");
                    break;
            }
        }

        if (options.AddGenerationPrompt)
        {
            output.Template("<|im_start|>assistant\n").Template((Thinking, options.EnableThinking) switch
            {
                (ChatThinking.Switchable, false) => "<think>\n\n</think>\n\n",
                (ChatThinking.Always, _) => "<think>\n",
                _ => "",
            });
        }
    }

    private void Check(IReadOnlyList<ChatMessage> messages, ChatOptions options)
    {
        foreach (ChatMessage message in messages)
        {
            // The role is written between control tokens, so it may not be anything at all.
            if (message.Role is not (ChatRole.System or ChatRole.User or ChatRole.Assistant or ChatRole.Tool))
            {
                throw new ArgumentException($"the role '{Excerpt.Of(message.Role)}' is unknown; system, user, assistant and tool are known", nameof(messages));
            }

            if (!HasTools && message.ToolCalls.Count > 0)
            {
                throw new ArgumentException("a message calls tools, which this model's chat template does not know", nameof(messages));
            }
        }

        if (!HasTools && options.Tools.Count > 0)
        {
            throw new ArgumentException("tools are given, which this model's chat template does not know", nameof(options));
        }
    }

    private void RenderSystem(ChatText output, ChatMessage first, ChatOptions options)
    {
        string? own = first.Role == ChatRole.System ? first.Content : null;
        if (options.Tools.Count > 0)
        {
            output.Template("<|im_start|>system\n");
            // The default prompt is followed by the gap even where Qwen3, which has none, starts with the tools at once.
            string gap = own is not null || DefaultSystem is not null ? "\n\n" : "";
            _ = own is not null ? output.Content(own) : output.Template(DefaultSystem ?? "");
            ChatMlTools.RenderOffer(output.Template(gap), options.Tools);
            output.Template("<|im_end|>\n");
        }
        else if (own is not null)
        {
            output.Template("<|im_start|>system\n").Content(own).Template("<|im_end|>\n");
        }
        else if (DefaultSystem is not null)
        {
            output.Template($"<|im_start|>system\n{DefaultSystem}<|im_end|>\n");
        }
    }

    private void RenderAssistant(ChatText output, ChatMessage message, bool afterQuery, bool isLast)
    {
        (string reasoning, string content) = SplitsReasoning ? ChatMlReasoning.Split(message) : ("", message.Content);
        output.Template("<|im_start|>assistant");

        // Qwen2.5 starts the content's line only when there is content or no call; the others always do.
        bool startsLine = DefaultSystem is null || content.Length > 0 || message.ToolCalls.Count == 0;
        output.Template(startsLine ? "\n" : "");

        // Thoughts before the last question are dropped: the model was trained to see only those of the answer in progress.
        if (SplitsReasoning && afterQuery && (isLast || reasoning.Length > 0))
        {
            output.Template("<think>\n").Content(reasoning.Trim('\n')).Template("\n</think>\n\n").Content(content.TrimStart('\n'));
        }
        else
        {
            output.Content(content);
        }

        ChatMlTools.RenderCalls(output, message.ToolCalls, firstStartsLine: content.Length > 0 || !startsLine);
        output.Template("<|im_end|>\n");
    }

    private static void RenderToolAnswer(ChatText output, ChatMessage message, bool first, bool last)
    {
        output.Template(first ? "<|im_start|>user" : "");
        output.Template("\n<tool_response>\n").Content(message.Content).Template("\n</tool_response>");
        output.Template(last ? "<|im_end|>\n" : "");
    }
}
