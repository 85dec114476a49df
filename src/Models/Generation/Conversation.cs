using System.Runtime.CompilerServices;
using System.Text;

namespace GpuKit.Ilgpu.Models;

/// <summary>A conversation with a model: remembers the turns and pays only for new tokens.</summary>
/// <param name="model">The loaded model.</param>
/// <param name="generator">The generator whose KV cache the conversation uses.</param>
public sealed class Conversation(LanguageModel model, TextGenerator generator)
{
    private readonly List<ChatMessage> turns = [];

    /// <summary>The system prompt, or null. Changing it takes effect with the next question.</summary>
    public string? System { get; set; }

    /// <summary>Rendering of the template (thinking, tools).</summary>
    public ChatOptions Rendering { get; set; } = new();

    /// <summary>The turns so far, without the system prompt.</summary>
    public IReadOnlyList<ChatMessage> Turns => turns;

    /// <summary>Forgets all turns; the system prompt stays.</summary>
    public void Clear() => turns.Clear();

    /// <summary>Asks and streams the answer. When it is cancelled, the part that came stays in the conversation.</summary>
    /// <param name="question">The user's message. Special tokens in it are ordinary text.</param>
    /// <param name="options">Length, sampling and stops.</param>
    /// <param name="cancellation">Stops the answer within one token.</param>
    /// <exception cref="ArgumentException">The conversation does not fit the context, or an option is out of range; the question is not kept then.</exception>
    public async IAsyncEnumerable<string> AskAsync(string question, GenerationOptions? options = null, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(question);
        IReadOnlyList<int> prompt = Encode(question);
        if (prompt.Count > generator.ContextLength)
            throw new ArgumentException($"The conversation has {prompt.Count} tokens with this question; the context holds {generator.ContextLength}.", nameof(question));
        var answer = new StringBuilder();
        bool failed = false;
        turns.Add(new ChatMessage(ChatRole.User, question));
        try
        {
            await using IAsyncEnumerator<string> pieces = generator.GenerateAsync(prompt, options, cancellation).GetAsyncEnumerator(cancellation);
            while (true)
            {
                try
                {
                    if (!await pieces.MoveNextAsync().ConfigureAwait(false))
                        break;
                }
                catch (Exception e) when (e is not OperationCanceledException)
                {
                    failed = true;
                    throw;
                }
                answer.Append(pieces.Current);
                yield return pieces.Current;
            }
        }
        finally
        {
            // A question that the model never answered would be part of every later prompt.
            if (failed)
                turns.RemoveAt(turns.Count - 1);
            else
                turns.Add(new ChatMessage(ChatRole.Assistant, answer.ToString()));
        }
    }

    private IReadOnlyList<int> Encode(string question)
    {
        List<ChatMessage> messages = [.. turns, new ChatMessage(ChatRole.User, question)];
        if (System is not null)
            messages.Insert(0, new ChatMessage(ChatRole.System, System));
        generator.RequireRoom(model.Chat.Render(messages, Rendering));
        return model.Chat.EncodeChat(model.Tokenizer, messages, Rendering);
    }
}
