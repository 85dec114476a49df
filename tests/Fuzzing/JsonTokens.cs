namespace GpuKit.Ilgpu.Tests.Fuzzing;

/// <summary>A well-formed JSON text cut into its tokens, white space between them dropped.</summary>
internal static class JsonTokens
{
    public static List<byte[]> Of(ReadOnlySpan<byte> json)
    {
        var tokens = new List<byte[]>();
        for (int at = 0; at < json.Length;)
        {
            int length = json[at] == '"' ? StringLength(json[at..]) : "{}[],:"u8.Contains(json[at]) ? 1 : WordLength(json[at..]);
            if (length > 0)
                tokens.Add(json.Slice(at, length).ToArray());
            at += Math.Max(length, 1);
        }

        return tokens;
    }

    public static bool IsMark(byte[] token) => token.Length == 1 && "{}[],:"u8.Contains(token[0]);

    public static bool Is(byte[] token, char mark) => token.Length == 1 && token[0] == mark;

    public static bool IsString(byte[] token) => token.Length > 1 && token[0] == '"';

    public static bool IsNumber(byte[] token) => token.Length > 0 && (char.IsAsciiDigit((char)token[0]) || token[0] == '-');

    /// <summary>The index after the value that starts at <paramref name="start"/>.</summary>
    public static int ValueEnd(IReadOnlyList<byte[]> tokens, int start)
    {
        int depth = 0;
        for (int i = start; i < tokens.Count; i++)
        {
            depth += Is(tokens[i], '{') || Is(tokens[i], '[') ? 1 : Is(tokens[i], '}') || Is(tokens[i], ']') ? -1 : 0;
            if (depth <= 0)
                return i + 1;
        }

        return tokens.Count;
    }

    private static int StringLength(ReadOnlySpan<byte> json)
    {
        int at = 1;
        while (json[at] != '"')
            at += json[at] == '\\' ? 2 : 1;
        return at + 1;
    }

    private static int WordLength(ReadOnlySpan<byte> json)
    {
        int end = json.IndexOfAny("{}[],:\" \t\r\n"u8);
        return end < 0 ? json.Length : end;
    }
}
