using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Consecutive rows of a KV head: row r is query head r mod group of token r / group. Rows beyond the last token repeat its heads and are not stored.</summary>
internal struct FlashSpan
{
    /// <summary>The first row.</summary>
    public int Row;

    /// <summary>Positions that any row sees lie below.</summary>
    public int End;

    /// <summary>Positions below are seen by all rows.</summary>
    public int AllSee;

    public static FlashSpan Of(FlashAttentionArgs a, int row, int count)
    {
        long first = a.Position[0], low = first + Token(a, row) + 1, high = first + Token(a, row + count - 1) + 1;
        FlashSpan span;
        span.Row = row;
        // Between two tokens of which one is outside the cache there may be others inside it.
        span.End = low > a.Capacity ? 0 : (int)IntrinsicMath.Max(IntrinsicMath.Min(high, a.Capacity), 0L);
        span.AllSee = IntrinsicMath.Min(Length(a, row), Length(a, row + count - 1));
        return span;
    }

    /// <summary>Positions that a row sees; none when its own is outside the cache.</summary>
    public static int Length(FlashAttentionArgs a, int row)
    {
        long length = (long)a.Position[0] + Token(a, row) + 1;
        return length >= 1 && length <= a.Capacity ? (int)length : 0;
    }

    /// <summary>The first word of a row in queries and output.</summary>
    public static long Word(FlashAttentionArgs a, int row, int headDim)
    {
        int head = (FlashTiles.KvHead(a) * a.GroupSize) + (row % a.GroupSize);
        return (((long)Token(a, row) * a.QueryHeads) + head) * (headDim / 2);
    }

    private static int Token(FlashAttentionArgs a, int row) => IntrinsicMath.Min(row / a.GroupSize, a.Tokens - 1);
}
