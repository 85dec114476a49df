using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A ring of slots for weights in shared memory, and where a thread stands in it. Two barriers a slot say "full" and "empty".</summary>
internal struct DecodeStepRing
{
    /// <summary>Rows of a slot that holds whole segments: half of an mma's.</summary>
    public const int GroupRows = 8;

    /// <summary>Bytes of a slot: eight rows of a segment, with their multipliers.</summary>
    public const int SlotBytes = GroupRows * (DecodeStepSegment.MostCodes + DecodeStepSegment.ScaleBytes);

    public uint Slots, Barriers;
    public int Count, Slot;
    public uint Parity;

    public readonly uint Address => Slots + (uint)(Slot * SlotBytes);

    public readonly uint Full => Barriers + (uint)(Slot * HopperGemm.BarrierBytes);

    public readonly uint Empty => Full + (uint)(Count * HopperGemm.BarrierBytes);

    public void Advance()
    {
        Slot++;
        if (Slot == Count)
        {
            Slot = 0;
            Parity ^= 1;
        }
    }
}

/// <summary>A part of the columns of a matrix: what a slot holds of a row.</summary>
internal struct DecodeStepSegment
{
    /// <summary>Most codes of a row in a slot.</summary>
    public const int MostCodes = 2048;

    /// <summary>Room behind a row's codes: the first row of a group has the group's multipliers there. Rows are an odd number of 64 bytes apart, so that eight of them meet every bank.</summary>
    public const int ScaleBytes = 64;

    public int Start, Codes;

    public static DecodeStepSegment Of(int k, int index)
    {
        DecodeStepSegment segment;
        segment.Start = index * MostCodes;
        segment.Codes = IntrinsicMath.Min(MostCodes, k - segment.Start);
        return segment;
    }

    /// <summary>From a row's start to its multipliers.</summary>
    public readonly int ScaleOffset => (Codes + 127) & ~127;

    /// <summary>From a row to the next.</summary>
    public readonly int Pitch => ScaleOffset + ScaleBytes;

    /// <summary>Whether a slot holds two groups of rows.</summary>
    public readonly bool IsPaired => 2 * DecodeStepRing.GroupRows * Pitch <= DecodeStepRing.SlotBytes;
}

/// <summary>A block's share of something that is counted in groups of eight rows.</summary>
internal struct DecodeStepShare
{
    public int First, Count;

    public static DecodeStepShare Of(int groups)
    {
        DecodeStepShare share;
        share.First = Grid.IdxX * groups / Grid.DimX;
        share.Count = ((Grid.IdxX + 1) * groups / Grid.DimX) - share.First;
        return share;
    }
}
