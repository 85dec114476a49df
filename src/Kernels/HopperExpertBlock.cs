using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Where a thread of <see cref="HopperExperts"/> finds things in its block's shared memory.</summary>
internal struct HopperExpertBlock
{
    public int Warp, Lane;

    /// <summary>The set of words that this launch exchanges through, 0 or 1.</summary>
    public int Set;

    /// <summary>Addresses of the warp's slots and of its barriers.</summary>
    public uint Own, Barriers;

    /// <summary>All warps' slots.</summary>
    public ArrayView<float> Slots;

    /// <summary>The warp's notes.</summary>
    public ArrayView<float> Notes;

    /// <summary>[16] parts of the block's logit.</summary>
    public ArrayView<float> Parts;

    /// <summary>The chosen experts in their order, their logits and their weights.</summary>
    public ArrayView<int> Experts;

    public ArrayView<float> Sums, Weights;

    /// <summary>[128] all logits.</summary>
    public ArrayView<float> Logits;

    /// <summary>The set; whether a warp has waited in vain; what recovery agrees about.</summary>
    public ArrayView<int> Flags;

    /// <summary>One of the warp's barriers: of tiles from 0 on, of down's items from <see cref="HopperExperts.MostTurns"/> on.</summary>
    public readonly uint Barrier(int i) => Barriers + (uint)(i * HopperExperts.BarrierBytes);

    /// <summary>One of the warp's slots.</summary>
    public readonly uint Slot(int i) => Own + (uint)(i * HopperExperts.SlotBytes);

    /// <summary>
    /// The lane's first 16 bytes of its first row of a slot; the second row is eight further. Copies exchange the 16-byte words of a row by its number, so lanes beside each other take rows 0 and 4, 1 and 5, …:
    /// each eight lanes that are served together then ask for all banks once.
    /// </summary>
    public readonly uint Line(int slot)
    {
        int row = Row(Lane);
        return Slot(slot) + (uint)((row * HopperExperts.BlockColumns) + ((((Lane & 3) ^ row) & 7) << 4));
    }

    /// <summary>The first of a lane's two rows.</summary>
    public static int Row(int lane) => (lane & 4) + (lane >> 3);
}

/// <summary>One lane's inputs of 128 columns, as products take them.</summary>
internal struct HopperExpertInputs
{
    public U4 X0, X1, X2, X3;

    /// <summary>The warp's columns of the state.</summary>
    public static HopperExpertInputs LoadState(HopperExpertsArgs a, HopperExpertBlock block)
    {
        long first = a.X + (block.Warp * HopperExperts.InputBytes) + ((block.Lane & 3) * 32);
        HopperExpertInputs x;
        x.X0 = Mem.LoadL2From(first);
        x.X1 = Mem.LoadL2From(first + 16);
        x.X2 = Mem.LoadL2From(first + 128);
        x.X3 = Mem.LoadL2From(first + 144);
        return x;
    }

    /// <summary>Inputs of an item of down from the warp's notes.</summary>
    public static HopperExpertInputs LoadNotes(HopperExpertBlock block, int item)
    {
        uint first = block.Slot(HopperExperts.NotesSlot) + (uint)(HopperExperts.DownInputs + (item * HopperExperts.InputBytes) + ((block.Lane & 3) * 32));
        HopperExpertInputs x;
        x.X0 = SharedWindow.Load(first);
        x.X1 = SharedWindow.Load(first + 16);
        x.X2 = SharedWindow.Load(first + 128);
        x.X3 = SharedWindow.Load(first + 144);
        return x;
    }

    /// <summary>In the order of the decoded weights.</summary>
    public readonly HopperExpertInputs Arrange()
    {
        HopperExpertInputs x;
        x.X0 = StreamedFp8.Arrange(X0);
        x.X1 = StreamedFp8.Arrange(X1);
        x.X2 = StreamedFp8.Arrange(X2);
        x.X3 = StreamedFp8.Arrange(X3);
        return x;
    }
}

/// <summary>One lane's sums of its two rows.</summary>
internal struct HopperExpertSums
{
    public float Upper, Lower;
}
