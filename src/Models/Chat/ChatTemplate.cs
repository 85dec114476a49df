namespace GpuKit.Ilgpu.Models;

/// <summary>
/// A model's chat format. No template engine runs: the ChatML family is rendered in C# and recognised by markers in the
/// template's text; anything else needs a renderer of the caller's.
/// </summary>
public sealed class ChatTemplate
{
    private readonly ChatRenderer renderer;

    private ChatTemplate(string family, ChatRenderer renderer)
    {
        Family = family;
        this.renderer = renderer;
    }

    /// <summary>What was recognised: <c>chatml</c>, <c>qwen3-hybrid</c>, <c>qwen3-thinking</c>, <c>qwen2.5</c>, or <c>custom</c>.</summary>
    public string Family { get; }

    /// <summary>
    /// Loads the template of a folder: <c>chat_template.jinja</c>, or <c>chat_template</c> of <c>tokenizer_config.json</c> (a
    /// string, or a list of which the one named <c>default</c> counts).
    /// </summary>
    /// <param name="folder">A Hugging Face model folder.</param>
    /// <param name="fallback">What renders when the folder has no template or one that is not recognised; null to refuse these.</param>
    /// <exception cref="ModelFileException">A file is malformed, or there is no known template and no fallback.</exception>
    public static ChatTemplate Load(string folder, ChatRenderer? fallback = null)
    {
        var files = ModelFolder.Open(folder);
        if (ChatTemplateFile.Read(files) is not { } found)
        {
            return fallback is not null ? FromRenderer(fallback) : throw new ModelFileException(
                ChatTemplateFile.ConfigFile, $"has no 'chat_template', nor does {files.Path} hold {ChatTemplateFile.JinjaFile}; supply a renderer for this model");
        }

        try
        {
            return Recognize(found.Text, found.FileName);
        }
        catch (ModelFileException) when (fallback is not null)
        {
            return FromRenderer(fallback);
        }
    }

    /// <summary>Recognises a template by its text.</summary>
    /// <param name="template">The Jinja text; it is not executed.</param>
    /// <param name="fileName">The name that errors start with.</param>
    /// <exception cref="ModelFileException">The template is of no known family.</exception>
    public static ChatTemplate Recognize(string template, string fileName = ChatTemplateFile.JinjaFile)
    {
        ArgumentNullException.ThrowIfNull(template);
        ChatMl style = ChatMlMarkers.Read(template, fileName);
        return new ChatTemplate(style.Family, style.Render);
    }

    /// <summary>A template that the caller renders.</summary>
    /// <param name="renderer">The renderer.</param>
    public static ChatTemplate FromRenderer(ChatRenderer renderer)
    {
        ArgumentNullException.ThrowIfNull(renderer);
        return new ChatTemplate("custom", renderer);
    }

    /// <summary>The rendered conversation, as Hugging Face's <c>apply_chat_template</c> gives it.</summary>
    /// <param name="messages">The conversation, oldest first.</param>
    /// <param name="options">How to render it; null for the standard way.</param>
    /// <exception cref="ArgumentException">There is no message, a role is unknown, or tools are given to a template without them.</exception>
    public string Render(IReadOnlyList<ChatMessage> messages, ChatOptions? options = null) => Write(messages, options).ToString();

    /// <summary>
    /// The ids of the rendered conversation. The template's own markers become control ids; special tokens in messages stay
    /// text. A conversation that is continued keeps its ids as a prefix wherever the template renders the earlier turns alike.
    /// </summary>
    /// <param name="tokenizer">The model's tokenizer.</param>
    /// <param name="messages">The conversation, oldest first.</param>
    /// <param name="options">How to render it; null for the standard way.</param>
    /// <exception cref="ArgumentException">As for <see cref="Render"/>, or the text exceeds a limit of the tokenizer.</exception>
    public IReadOnlyList<int> EncodeChat(Tokenizer tokenizer, IReadOnlyList<ChatMessage> messages, ChatOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(tokenizer);
        ChatText text = Write(messages, options);
        return tokenizer.Encode(text.ToString(), text.Contents);
    }

    private ChatText Write(IReadOnlyList<ChatMessage> messages, ChatOptions? options)
    {
        ArgumentNullException.ThrowIfNull(messages);
        if (messages.Count == 0)
        {
            throw new ArgumentException("a conversation has at least one message", nameof(messages));
        }

        var text = new ChatText();
        renderer(text, messages, options ?? new ChatOptions());
        return text;
    }
}
