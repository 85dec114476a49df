using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Arguments of <see cref="SplitGemm"/>.</summary>
internal struct SplitGemmArgs
{
    public LinearArgs Product;

    /// <summary>[parts, tiles along N, along M, rows of a tile, columns of a tile] float32: sums of parts of K, where there are several parts.</summary>
    public ArrayView<uint> Partials;

    /// <summary>[tiles along N, along M] parts that are done, zero before and afterwards.</summary>
    public ArrayView<int> Arrived;

    /// <summary>Turns of 64 columns of a part.</summary>
    public int PartTurns;
}

/// <summary>
/// Products of 17 to 256 rows of x: y[m, n] = Σ_k x[m, k] · W[n, k] on tensor cores, K spread over teams of warps and over blocks.
/// </summary>
/// <remarks>
/// Such a product is bound by reading W as long as decoding, multiplying and copies overlap. A tile is up to 64 rows of x, all of them if there are no more, and 64 or 128 of W, since every tile reads its rows of x; few tiles are
/// few warps, so K is what is shared. A block has a tile and a part of K. Its teams of two or four warps take 64 columns of it in turn, each with a ring of stages and
/// a meeting point of its own: while one waits another multiplies. A warp has 32 rows of W and the tile's of x, so a tile decodes every code once. Copies, decoding
/// (but of E4M3) and sums of 64 columns are those of <see cref="Gemm"/>.
/// Sums of teams are added in shared memory in their order, and sums of parts in theirs by the last block of a tile to be done, by an integer counter; which one that is changes nothing. Teams and
/// parts follow from N, K, format, device, whether there are more than 32 rows and how many tiles of 64: within 17 to 32 rows, 33 to 64, 65 to 128 and so on a row's bits do not depend on their number.
/// </remarks>
internal static class SplitGemm
{
    /// <summary>Columns of K of a turn.</summary>
    public const int TurnColumns = 64;

    /// <summary>Rows of W of a warp.</summary>
    public const int WarpColumns = 32;

    public static void Run<TFormat, TWarp, TStages, TTeams>(SplitGemmArgs a)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        ArrayView<int> arrived = SharedMemory.Allocate<int>(1);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int team = Group.IdxX >> (5 + TTeams.WarpsShift), teamBytes = SplitSizes<TFormat, TWarp, TStages, TTeams>.TeamBytes;
        ArrayView<byte> own = shared.SubView(team * teamBytes, teamBytes);
        TWarp sums = default;
        Multiply<TFormat, TWarp, TStages, TTeams>(a, own, team, ref sums);
        SplitSums.Add<TFormat, TWarp, TStages, TTeams>(a, shared, own, arrived, sums);
    }

    private static void Multiply<TFormat, TWarp, TStages, TTeams>(SplitGemmArgs a, ArrayView<byte> own, int team, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TWarp : struct, IGemmWarp<TWarp>
        where TStages : struct, IGemmStages
        where TTeams : struct, ISplitTeams
    {
        int k = ((Grid.IdxZ * a.PartTurns) + team) * TurnColumns;
        // Columns beyond the part, which the next one has, are as those beyond K.
        int end = IntrinsicMath.Min(a.Product.K, (Grid.IdxZ + 1) * a.PartTurns * TurnColumns);
        const int Step = TurnColumns;
        SplitCopies copies = SplitCopies.Locate<TFormat, TWarp, TStages, TTeams>(a.Product, own, end);
        SplitPlace place = SplitProducts.Locate<TFormat, TWarp, TStages, TTeams>(a.Product);
        for (int ahead = 0; ahead < TStages.Count - 1; ahead++)
            copies.Weights<TFormat, TWarp, TStages, TTeams>(ahead, k + (ahead * TTeams.Count * Step));
        GridDependency.Release();
        GridDependency.Wait();
        for (int ahead = 0; ahead < TStages.Count - 1; ahead++)
        {
            copies.Inputs<TFormat, TWarp, TStages, TTeams>(ahead, k + (ahead * TTeams.Count * Step));
            CpAsync.Commit();
        }
        int full = 0, empty = TStages.Count - 1;
        for (; k < end; k += TTeams.Count * Step)
        {
            SplitScales scales = SplitProducts.Scales<TFormat>(a.Product, place, k);
            CpAsync.Wait(TStages.Count - 2);
            // The team's copies of this turn are complete, and the team has read the stage that is filled next.
            Meet<TTeams>(team);
            int next = k + ((TStages.Count - 1) * TTeams.Count * Step);
            copies.Weights<TFormat, TWarp, TStages, TTeams>(empty, next);
            copies.Inputs<TFormat, TWarp, TStages, TTeams>(empty, next);
            CpAsync.Commit();
            SplitProducts.Turn<TFormat, TWarp, TStages, TTeams>(own, place, scales, full, ref sums);
            empty = full;
            full = full + 1 == TStages.Count ? 0 : full + 1;
        }
        // All teams meet equally often, also those that had a turn less than the first: racecheck seems to count a thread's barriers to know what lies between them (docs/reliability.md).
        if (k - (team * TurnColumns) < end)
            Meet<TTeams>(team);
        // The stages become sums: no copy may be on its way, no fragment unread.
        CpAsync.WaitAll();
        Meet<TTeams>(team);
    }

    // Writes of the team's threads to shared memory before are seen after.
    private static void Meet<TTeams>(int team)
        where TTeams : struct, ISplitTeams
    {
        if (TTeams.WarpsShift == 2)
            Warpgroup.Meet((uint)team + 1);
        else
            Warpgroup.MeetPair((uint)team + 1);
    }
}
