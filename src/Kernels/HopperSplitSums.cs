using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The end of a block of <see cref="HopperSplitGemm"/>: sums of teams meet in shared memory, those of parts in global memory.</summary>
internal static class HopperSplitSums
{
    private const int MostRows = 64;

    // A warpgroup's sums: 64 rows of 64 float32, in two slabs.
    private const int WarpgroupBytes = MostRows * HopperMixedGemm.WarpgroupColumns * sizeof(float), SlabBytes = WarpgroupBytes / 2;

    /// <summary>Called once by every thread of the block, when no stage is read any more.</summary>
    public static void Add<TOutput, TTeams, TWidth>(HopperMixedArgs a, uint shared)
        where TOutput : struct, IMixedOutput
        where TTeams : struct, IHopperTeams
        where TWidth : struct, IMixedWidth
    {
        uint own = shared + (uint)((Group.IdxX >> 7) * WarpgroupBytes) + MixedFloat32Output.LanePart();
        MixedFloat32Output.Store(0, own);
        int firstRow = Grid.IdxZ * TWidth.Rows, rows = IntrinsicMath.Min(a.M - firstRow, TWidth.Rows);
        if (TWidth.Rows > MixedFloat32Output.SlabRows && rows > MixedFloat32Output.SlabRows)
            MixedFloat32Output.Store(1, own + SlabBytes);
        // All warpgroups' sums are there before they are added.
        Block.Barrier();
        int parts = Grid.DimY, tileBytes = MostRows * TTeams.Columns * sizeof(float), octets = rows * (TTeams.Columns / 8), tile = (Grid.IdxZ * Grid.DimX) + Grid.IdxX;
        long sums = a.Partials + ((long)tile * tileBytes), step = (long)Grid.DimX * Grid.DimZ * tileBytes;
        for (int octet = Group.IdxX; octet < octets; octet += Group.DimX)
        {
            U4 low = Teams<TTeams>(shared, octet, 0), high = Teams<TTeams>(shared, octet, 1);
            if (parts == 1)
            {
                Store<TOutput, TTeams>(a, firstRow, octet, low, high);
                continue;
            }
            long to = sums + (Grid.IdxY * step) + (octet * 32L);
            Mem.StoreGlobalTo(to, low);
            Mem.StoreGlobalTo(to + 16, high);
        }
        if (parts == 1)
            return;
        ArrayView<uint> arrived = SharedMemory.GetDynamic<byte>().SubView(HopperSplitGemm.Warpgroups * WarpgroupBytes, 16).Cast<uint>();
        // The block's sums are written before it counts.
        Block.Barrier();
        if (Group.IdxX == 0)
            arrived[0] = Fence.CountAround(a.Arrived + (tile * (long)sizeof(int)), (uint)(parts - 1));
        // The whole block knows its number, and sees what the others wrote before they counted.
        Block.Barrier();
        if (arrived[0] != (uint)(parts - 1))
            return;
        for (int octet = Group.IdxX; octet < octets; octet += Group.DimX)
            Store<TOutput, TTeams>(a, firstRow, octet, Parts(sums + (octet * 32L), step, parts), Parts(sums + (octet * 32L) + 16, step, parts));
    }

    // Four parts are requested before any is added; those that are none repeat another and are not added.
    private static U4 Parts(long from, long step, int parts)
    {
        U4 sum = default;
        for (int part = 0; part < parts; part += 4)
        {
            long at = from + (part * step);
            U4 first = Mem.LoadL2From(at), second = Mem.LoadL2From(at + (part + 1 < parts ? step : 0));
            U4 third = Mem.LoadL2From(at + (part + 2 < parts ? 2 * step : 0)), fourth = Mem.LoadL2From(at + (part + 3 < parts ? 3 * step : 0));
            sum = part == 0 ? first : Plus(sum, first);
            sum = part + 1 < parts ? Plus(sum, second) : sum;
            sum = part + 2 < parts ? Plus(sum, third) : sum;
            sum = part + 3 < parts ? Plus(sum, fourth) : sum;
        }
        return sum;
    }

    private static U4 Teams<TTeams>(uint shared, int octet, int word)
        where TTeams : struct, IHopperTeams
    {
        int m = octet / (TTeams.Columns / 8), within = octet & ((TTeams.Columns / 8) - 1), row = m & (MixedFloat32Output.SlabRows - 1);
        uint at = shared + (uint)(((within >> 3) * WarpgroupBytes) + ((m >> 5) * SlabBytes)) + MixedFloat32Output.WordAddress((uint)row, (uint)(((within & 7) * 2) + word));
        if (TTeams.Count == 2)
            return Plus(SharedWindow.Load(at), SharedWindow.Load(at + (2 * WarpgroupBytes)));
        U4 first = Plus(SharedWindow.Load(at), SharedWindow.Load(at + WarpgroupBytes)), second = Plus(SharedWindow.Load(at + (2 * WarpgroupBytes)), SharedWindow.Load(at + (3 * WarpgroupBytes)));
        return Plus(first, second);
    }

    private static void Store<TOutput, TTeams>(HopperMixedArgs a, int firstRow, int octet, U4 low, U4 high)
        where TOutput : struct, IMixedOutput
        where TTeams : struct, IHopperTeams
    {
        int m = octet / (TTeams.Columns / 8), column = (Grid.IdxX * TTeams.Columns) + ((octet & ((TTeams.Columns / 8) - 1)) * 8);
        // N is a multiple of 8: all eight columns exist, or none.
        if (column >= a.N)
            return;
        long to = a.Output + ((firstRow + m) * a.OutputStride) + ((long)column * TOutput.ElementBytes);
        if (TOutput.ElementBytes == sizeof(float))
        {
            Mem.StoreGlobalTo(to, low);
            Mem.StoreGlobalTo(to + 16, high);
            return;
        }
        U4 bits;
        bits.X = Cvt.Bf16x2(Interop.IntAsFloat(low.Y), Interop.IntAsFloat(low.X));
        bits.Y = Cvt.Bf16x2(Interop.IntAsFloat(low.W), Interop.IntAsFloat(low.Z));
        bits.Z = Cvt.Bf16x2(Interop.IntAsFloat(high.Y), Interop.IntAsFloat(high.X));
        bits.W = Cvt.Bf16x2(Interop.IntAsFloat(high.W), Interop.IntAsFloat(high.Z));
        Mem.StoreGlobalTo(to, bits);
    }

    private static U4 Plus(U4 a, U4 b)
    {
        U4 sum;
        sum.X = Plus(a.X, b.X);
        sum.Y = Plus(a.Y, b.Y);
        sum.Z = Plus(a.Z, b.Z);
        sum.W = Plus(a.W, b.W);
        return sum;
    }

    private static uint Plus(uint a, uint b) => Interop.FloatAsInt(Interop.IntAsFloat(a) + Interop.IntAsFloat(b));
}
