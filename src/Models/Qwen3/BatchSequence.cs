namespace GpuKit.Ilgpu.Models;

/// <summary>What the host knows of one sequence of a <see cref="Qwen3BatchSession"/>.</summary>
/// <param name="forward">The network over the sequence alone, for its prompts.</param>
/// <param name="contextLength">Most tokens.</param>
internal sealed class BatchSequence(Qwen3Forward forward, int contextLength)
{
    public Qwen3Forward Forward => forward;

    /// <summary>What was prefilled and drawn, without <see cref="Pending"/>. Room for all from the start: steps allocate nothing.</summary>
    public List<int> Tokens { get; } = new(contextLength);

    /// <summary>How many of the tokens are in the cache: all, or all but a prompt's last one, which the next step runs over.</summary>
    public int Cached { get; set; }

    public bool IsRunning { get; set; }

    /// <summary>The token drawn last.</summary>
    public int? Pending { get; set; }

    /// <summary>The token that the next step runs over.</summary>
    public int NextToken => Pending ?? Tokens[^1];

    /// <summary>Its position.</summary>
    public int NextPosition => Cached;

    /// <summary>Notes that a step has run and what it drew.</summary>
    public void Append(int drawn)
    {
        if (Pending is { } token)
            Tokens.Add(token);
        Pending = drawn;
        Cached = Tokens.Count;
    }
}
