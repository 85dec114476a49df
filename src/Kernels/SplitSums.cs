using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>The end of a block of <see cref="SplitGemm"/>: sums of teams meet in shared memory, those of parts in global memory.</summary>
internal static class SplitSums
{
    /// <summary>Called once by every thread of the block, when its team reads no stage any more.</summary>
    public static void Add<TFormat, TWarp, TStages, TTeams>(SplitGemmArgs a, ArrayView<byte> shared, ArrayView<byte> own, ArrayView<int> arrived, TWarp sums)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        int lane = Group.IdxX & 31, column = (((Group.IdxX >> 5) & ((1 << TTeams.WarpsShift) - 1)) * SplitGemm.WarpColumns) + MmaFragment.CRow(lane, 0);
        ArrayView<uint> ownWords = own.Cast<uint>(), words = shared.Cast<uint>();
        int pitch = SplitSizes<TFormat, TWarp, TStages, TTeams>.Pitch;
        TWarp.Publish(sums, ownWords.SubView((MmaFragment.CColumn(lane, 0) * pitch) + column, 1), 0, pitch * sizeof(float));
        // All teams' sums are there before they are added.
        Block.Barrier();
        int parts = Grid.DimZ, columns = SplitSizes<TFormat, TWarp, TStages, TTeams>.Columns, octetsShift = OctetsShift<TTeams>(), tileWords = SplitSizes<TFormat, TWarp, TStages, TTeams>.Rows * columns;
        int firstInput = Grid.IdxX * SplitSizes<TFormat, TWarp, TStages, TTeams>.Rows, octets = IntrinsicMath.Min(SplitSizes<TFormat, TWarp, TStages, TTeams>.Rows, a.Product.M - firstInput) << octetsShift;
        int tile = (Grid.IdxY * Grid.DimX) + Grid.IdxX, tiles = Grid.DimY * Grid.DimX;
        long partial = (((long)Grid.IdxZ * tiles) + tile) * tileWords;
        for (int octet = Group.IdxX; octet < octets; octet += Group.DimX)
        {
            int m = octet >> octetsShift, first = (octet & ((1 << octetsShift) - 1)) * 8;
            F4 low = Teams<TFormat, TWarp, TStages, TTeams>(words, (m * pitch) + first), high = Teams<TFormat, TWarp, TStages, TTeams>(words, (m * pitch) + first + 4);
            if (parts == 1)
            {
                Finish<TFormat>(a.Product, firstInput + m, (Grid.IdxY * columns) + first, low, high);
                continue;
            }
            Mem.StoreGlobal(ref a.Partials[partial + (octet * 8)], Float32Output.Bits(low));
            Mem.StoreGlobal(ref a.Partials[partial + (octet * 8) + 4], Float32Output.Bits(high));
        }
        if (parts == 1)
            return;
        // The block's sums are written before it counts.
        Block.Barrier();
        if (Group.IdxX == 0)
            arrived[0] = Fence.Count(ref a.Arrived[tile]);
        // The whole block knows its number, and sees what the others wrote before they counted.
        Block.Barrier();
        if (arrived[0] != parts - 1)
            return;
        AddParts<TFormat, TTeams>(a, tileWords, (tile, tiles), firstInput, octets);
        if (Group.IdxX == 0)
            a.Arrived[tile] = 0;
    }

    // Octets of a row of the tile.
    private static int OctetsShift<TTeams>()
        where TTeams : struct, ISplitTeams => TTeams.WarpsShift + 2;

    private static void AddParts<TFormat, TTeams>(SplitGemmArgs a, int tileWords, (int Number, int Count) tile, int firstInput, int octets)
        where TFormat : struct, ITiledFormat
        where TTeams : struct, ISplitTeams
    {
        int parts = Grid.DimZ, octetsShift = OctetsShift<TTeams>();
        long step = (long)tile.Count * tileWords, start = (long)tile.Number * tileWords;
        for (int octet = Group.IdxX; octet < octets; octet += Group.DimX)
        {
            F4 low = default, high = default;
            for (int part = 0; part < parts; part += 4)
            {
                // Four parts are requested before any is added; those that are none are not.
                long at = start + (part * step) + (octet * 8);
                long at1 = at + (part + 1 < parts ? step : 0), at2 = at + (part + 2 < parts ? 2 * step : 0), at3 = at + (part + 3 < parts ? 3 * step : 0);
                U4 low0 = Mem.LoadL2(ref a.Partials[at]), high0 = Mem.LoadL2At(ref a.Partials[at], 16);
                U4 low1 = Mem.LoadL2(ref a.Partials[at1]), high1 = Mem.LoadL2At(ref a.Partials[at1], 16);
                U4 low2 = Mem.LoadL2(ref a.Partials[at2]), high2 = Mem.LoadL2At(ref a.Partials[at2], 16);
                U4 low3 = Mem.LoadL2(ref a.Partials[at3]), high3 = Mem.LoadL2At(ref a.Partials[at3], 16);
                low = Plus(low, low0, true);
                high = Plus(high, high0, true);
                low = Plus(low, low1, part + 1 < parts);
                high = Plus(high, high1, part + 1 < parts);
                low = Plus(low, low2, part + 2 < parts);
                high = Plus(high, high2, part + 2 < parts);
                low = Plus(low, low3, part + 3 < parts);
                high = Plus(high, high3, part + 3 < parts);
            }
            Finish<TFormat>(a.Product, firstInput + (octet >> octetsShift), ((Grid.IdxY << octetsShift) + (octet & ((1 << octetsShift) - 1))) * 8, low, high);
        }
    }

    private static F4 Teams<TFormat, TWarp, TStages, TTeams>(ArrayView<uint> words, int index)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        int step = SplitSizes<TFormat, TWarp, TStages, TTeams>.TeamBytes >> 2;
        F4 sum = GemmOutput.Load(words, index, 1f);
        for (int team = 1; team < TTeams.Count; team++)
            sum = Plus(sum, Mem.LoadShared(ref words[index + (team * step)]), true);
        return sum;
    }

    private static void Finish<TFormat>(LinearArgs a, int m, int n, F4 low, F4 high)
        where TFormat : struct, ITiledFormat
    {
        if (n >= a.N)
            return;
        if (TFormat.HasMatrixScale)
        {
            float scale = TFormat.MatrixScale(a.ScaleTable, 0);
            low = Times(low, scale);
            high = Times(high, scale);
        }
        GemmOutput.StoreOctet(a, m, n, a.N, low, high);
    }

    private static F4 Plus(F4 sum, U4 bits, bool adds)
    {
        sum.X = adds ? sum.X + Interop.IntAsFloat(bits.X) : sum.X;
        sum.Y = adds ? sum.Y + Interop.IntAsFloat(bits.Y) : sum.Y;
        sum.Z = adds ? sum.Z + Interop.IntAsFloat(bits.Z) : sum.Z;
        sum.W = adds ? sum.W + Interop.IntAsFloat(bits.W) : sum.W;
        return sum;
    }

    private static F4 Times(F4 v, float scale)
    {
        v.X *= scale;
        v.Y *= scale;
        v.Z *= scale;
        v.W *= scale;
        return v;
    }
}
