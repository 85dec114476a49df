namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// How many chunks of weights a warp multiplies, where the kernel is compiled for one number. Then no branch stands between them, at which the compiler would wait for
/// all that are on their way.
/// </summary>
internal interface ITileTurns
{
    /// <summary>0 for any number.</summary>
    static abstract int Count { get; }

    /// <summary>Neighbouring blocks, a cluster if more than one, that share a tile's columns.</summary>
    static abstract int Blocks { get; }
}

/// <summary>As many as the shape asks for.</summary>
internal readonly struct AnyTurns : ITileTurns
{
    public static int Count => 0;

    public static int Blocks => 1;
}

/// <summary>Four.</summary>
internal readonly struct FourTurns : ITileTurns
{
    public static int Count => 4;

    public static int Blocks => 1;
}

/// <summary>Eight.</summary>
internal readonly struct EightTurns : ITileTurns
{
    public static int Count => 8;

    public static int Blocks => 1;
}

/// <summary>Eight, by three blocks that share the columns: one finds room wherever a block of a third of the threads has left.</summary>
internal readonly struct EightTurnsOfThree : ITileTurns
{
    public static int Count => 8;

    public static int Blocks => 3;
}
