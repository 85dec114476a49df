using System.Text;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// A conversation being rendered: it remembers which stretches the template wrote and which came from outside, so that a
/// user's text cannot become a control token.
/// </summary>
public sealed class ChatText
{
    private readonly StringBuilder text = new();
    private readonly List<TextStretch> contents = [];

    /// <summary>The stretches that came from outside, in order.</summary>
    public IReadOnlyList<TextStretch> Contents => contents;

    /// <summary>Appends text of the template itself; special tokens in it are control tokens.</summary>
    /// <param name="text">The text.</param>
    /// <returns>This.</returns>
    public ChatText Template(string text)
    {
        this.text.Append(text);
        return this;
    }

    /// <summary>Appends text from outside (a message, a tool's description); special tokens in it are ordinary text.</summary>
    /// <param name="text">The text.</param>
    /// <returns>This.</returns>
    public ChatText Content(string text)
    {
        if (text.Length > 0)
        {
            contents.Add(new TextStretch(this.text.Length, text.Length));
            this.text.Append(text);
        }

        return this;
    }

    /// <summary>The rendering so far.</summary>
    public override string ToString() => text.ToString();
}
