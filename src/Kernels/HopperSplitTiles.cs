using GpuKit.Ilgpu.Kernels.Isa;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Rows of x of a block of <see cref="HopperSplitGemm"/>, and how many warps and stages it spreads over.</summary>
internal interface IHopperSplitTile : IMixedWidth
{
    /// <summary>Teams of two warpgroups.</summary>
    static abstract int Teams { get; }

    /// <summary>Stages of a team: as many as fit.</summary>
    static abstract int Stages { get; }
}

/// <summary>32 rows. Sums are short enough for 80 registers a thread: a third team.</summary>
internal readonly struct HopperSplit32 : IHopperSplitTile
{
    public static int Rows => 32;

    public static int Teams => 3;

    public static int Stages => 3;

    public static void Even(ulong b, uint adds) => WgmmaMixed.MultiplyEvenN32(b, adds);

    public static void Odd(ulong b, uint adds) => WgmmaMixed.MultiplyOddN32(b, adds);
}

/// <summary>32 rows with two teams.</summary>
internal readonly struct HopperSplit32Pair : IHopperSplitTile
{
    public static int Rows => 32;

    public static int Teams => 2;

    public static int Stages => 4;

    public static void Even(ulong b, uint adds) => WgmmaMixed.MultiplyEvenN32(b, adds);

    public static void Odd(ulong b, uint adds) => WgmmaMixed.MultiplyOddN32(b, adds);
}

/// <summary>64 rows.</summary>
internal readonly struct HopperSplit64 : IHopperSplitTile
{
    public static int Rows => 64;

    public static int Teams => 2;

    public static int Stages => 3;

    public static void Even(ulong b, uint adds) => WgmmaMixed.MultiplyEvenN64(b, adds);

    public static void Odd(ulong b, uint adds) => WgmmaMixed.MultiplyOddN64(b, adds);
}

/// <summary>How <see cref="HopperSplitGemm"/> decodes. Never changes a bit.</summary>
internal interface ISplitCodes
{
    /// <summary>Whether a quarter's codes are requested when the quarter before is decoded, instead of when it is multiplied.</summary>
    static abstract bool LoadsEarly { get; }

    /// <summary>Whether signs and magnitudes are moved by multiplying, which other units do than masks.</summary>
    static abstract bool Multiplies { get; }
}

/// <summary>Shifts.</summary>
internal readonly struct ShiftedCodes : ISplitCodes
{
    public static bool LoadsEarly => false;

    public static bool Multiplies => false;
}

/// <summary>Shifts, loads early.</summary>
internal readonly struct ShiftedEarlyCodes : ISplitCodes
{
    public static bool LoadsEarly => true;

    public static bool Multiplies => false;
}

/// <summary>Multiplies.</summary>
internal readonly struct MultipliedCodes : ISplitCodes
{
    public static bool LoadsEarly => false;

    public static bool Multiplies => true;
}

/// <summary>Multiplies, loads early.</summary>
internal readonly struct MultipliedEarlyCodes : ISplitCodes
{
    public static bool LoadsEarly => true;

    public static bool Multiplies => true;
}
