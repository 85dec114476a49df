namespace GpuKit.Ilgpu.Models;

/// <summary>The bytes that each id stands for, in one array: a vocabulary has 150,000 short tokens.</summary>
internal sealed class TokenBytes
{
    private readonly int[] starts;
    private readonly byte[] bytes;

    private TokenBytes(int[] starts, byte[] bytes)
    {
        this.starts = starts;
        this.bytes = bytes;
        Longest = Enumerable.Range(0, Count).Max(id => starts[id + 1] - starts[id]);
    }

    /// <summary>Bytes of the longest token; at least 1.</summary>
    public int Longest { get; }

    /// <summary>One more than the largest id.</summary>
    public int Count => starts.Length - 1;

    /// <summary>The bytes of an id; none for an id that no token has.</summary>
    public ReadOnlySpan<byte> this[int id] =>
        (uint)id < (uint)Count ? bytes.AsSpan(starts[id]..starts[id + 1]) : default;

    public static TokenBytes Create(TokenizerFile file)
    {
        var texts = new string?[1 + Math.Max(file.Vocabulary.Values.Max(), file.Added.Max(t => (int?)t.Id) ?? 0)];
        foreach ((string token, int id) in file.Vocabulary)
        {
            texts[id] = token;
        }

        Dictionary<int, AddedToken> added = file.Added.ToDictionary(t => t.Id);
        var starts = new int[texts.Length + 1];
        var bytes = new List<byte>(texts.Length * 8);
        for (int id = 0; id < texts.Length; id++)
        {
            if (added.TryGetValue(id, out AddedToken? token))
            {
                bytes.AddRange(System.Text.Encoding.UTF8.GetBytes(token.Content));
            }
            else if (texts[id] is { } text && !ByteLevelAlphabet.TryAppendBytes(text, bytes))
            {
                throw new ModelFileException(
                    TokenizerFile.FileName, $"vocabulary entry '{Excerpt.Of(text)}' (id {id}) is not spelled in the byte-level alphabet");
            }

            starts[id + 1] = bytes.Count;
        }

        return new TokenBytes(starts, [.. bytes]);
    }
}
