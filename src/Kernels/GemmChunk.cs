using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>A lane's four 16-byte units of x of a pair of fragments and 64 columns: of row g of each the unit of the first eight of its 16 columns, then of the others.</summary>
internal struct GemmUnits
{
    public U4 Even0, Even1, Odd0, Odd1;

    private const int FragmentBytes = 8 * GemmCopies.RowBytes;

    /// <summary>The first eight of the lane's 16 columns, of the pair at a constant number of bytes behind the first.</summary>
    public void LoadEven(GemmUnitRows rows, int bytes)
    {
        Even0 = Mem.LoadSharedAt(ref rows.Even[0], bytes);
        Even1 = Mem.LoadSharedAt(ref rows.Even[0], bytes + FragmentBytes);
    }

    /// <summary>The others.</summary>
    public void LoadOdd(GemmUnitRows rows, int bytes)
    {
        Odd0 = Mem.LoadSharedAt(ref rows.Odd[0], bytes);
        Odd1 = Mem.LoadSharedAt(ref rows.Odd[0], bytes + FragmentBytes);
    }
}

/// <summary>A lane's codes of 64 columns: of each of two fragments of W the row g and the row g + 8, and what decoding needs of those rows.</summary>
internal struct GemmCodes
{
    public U4 Upper0, Lower0, Upper1, Lower1;
    public uint UpperOperand0, LowerOperand0, UpperOperand1, LowerOperand1;
}

/// <summary>Where a lane finds units of x: row g of its warp's first fragment.</summary>
internal struct GemmUnitRows
{
    public ArrayView<uint> Even, Odd;
}

/// <summary>The operands of four steps with up to four fragments, and what multiplies their sums.</summary>
internal struct GemmChunk
{
    public GemmFragments Step0, Step1, Step2, Step3;
    public GemmScales Scales;
}
