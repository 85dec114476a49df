namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// How many chunks of weights, or tiles, a warp multiplies, where the kernel is compiled for one number. Then no branch stands between them, at which the compiler would wait for
/// all that are on their way.
/// </summary>
internal interface ITileTurns
{
    /// <summary>0 for any number.</summary>
    static abstract int Count { get; }
}

/// <summary>As many as the shape asks for.</summary>
internal readonly struct AnyTurns : ITileTurns
{
    public static int Count => 0;
}

/// <summary>One.</summary>
internal readonly struct OneTurn : ITileTurns
{
    public static int Count => 1;
}

/// <summary>Two.</summary>
internal readonly struct TwoTurns : ITileTurns
{
    public static int Count => 2;
}

/// <summary>Three.</summary>
internal readonly struct ThreeTurns : ITileTurns
{
    public static int Count => 3;
}

/// <summary>Four.</summary>
internal readonly struct FourTurns : ITileTurns
{
    public static int Count => 4;
}

/// <summary>Eight.</summary>
internal readonly struct EightTurns : ITileTurns
{
    public static int Count => 8;
}
