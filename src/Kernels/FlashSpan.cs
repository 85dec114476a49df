using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What the rows of a KV head follow from: row r is query head r mod group of token r / group. Rows beyond the last token repeat its heads and are not stored.</summary>
internal struct FlashTokens
{
    /// <summary>Position of the first token.</summary>
    public int First;

    public int Tokens;
    public int QueryHeads;
    public int GroupSize;
    public int Capacity;

    /// <summary>Positions that a row sees; none when its own is outside the cache.</summary>
    public readonly int Length(int row)
    {
        long length = (long)First + Token(row) + 1;
        return length >= 1 && length <= Capacity ? (int)length : 0;
    }

    /// <summary>The token of a row.</summary>
    public readonly int Token(int row) => IntrinsicMath.Min(row / GroupSize, Tokens - 1);

    /// <summary>The first word of a row in queries and output.</summary>
    public readonly long Word(int kvHead, int row, int headDim) => (((long)Token(row) * QueryHeads) + (kvHead * GroupSize) + (row % GroupSize)) * (headDim / 2);
}

/// <summary>Consecutive rows of a KV head.</summary>
internal struct FlashSpan
{
    /// <summary>The first row.</summary>
    public int Row;

    /// <summary>Positions that any row sees lie below.</summary>
    public int End;

    /// <summary>Positions below are seen by all rows.</summary>
    public int AllSee;

    public static FlashSpan Of(FlashTokens tokens, int row, int count)
    {
        long low = (long)tokens.First + tokens.Token(row) + 1, high = (long)tokens.First + tokens.Token(row + count - 1) + 1;
        FlashSpan span;
        span.Row = row;
        // Between two tokens of which one is outside the cache there may be others inside it.
        span.End = low > tokens.Capacity ? 0 : (int)IntrinsicMath.Max(IntrinsicMath.Min(high, tokens.Capacity), 0L);
        span.AllSee = IntrinsicMath.Min(tokens.Length(row), tokens.Length(row + count - 1));
        return span;
    }
}
