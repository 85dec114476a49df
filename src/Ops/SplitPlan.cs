using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>How a product of 17 to 64 rows is spread over blocks by <see cref="SplitGemm"/>: a pure function of shape and device.</summary>
/// <param name="Tile">The kernel.</param>
/// <param name="Columns">Tiles along N.</param>
/// <param name="Parts">Parts of K.</param>
/// <param name="PartTurns">Turns of 64 columns of a part.</param>
internal readonly record struct SplitPlan(SplitTile Tile, int Columns, int Parts, int PartTurns)
{
    private const int MostParts = 8;

    public static SplitPlan Of(SplitTile tile, in LinearShape shape, in LinearDevice device, int? parts = null)
    {
        int columns = Count(shape.N, SplitGemm.Columns), turns = Count(shape.K, SplitGemm.TurnColumns);
        int most = Math.Max(1, LaunchScratch.BlocksOf(device.Multiprocessors) / columns);
        int best = Math.Min(parts ?? ChooseParts(columns, turns, device), most);
        int partTurns = Math.Max(1, Count(turns, best));
        return new SplitPlan(tile, columns, Math.Max(1, Count(turns, partTurns)), partTurns);
    }

    private static int ChooseParts(int columns, int turns, in LinearDevice device)
    {
        (int best, long least) = (1, long.MaxValue);
        for (int parts = 1; parts <= MostParts && (parts == 1 || parts * columns <= LaunchScratch.BlocksOf(device.Multiprocessors)); parts++)
        {
            long cost = (long)Count(columns * parts, device.Multiprocessors) * (Count(turns, parts) + 10) + (parts == 1 ? 0 : 8);
            if (cost < least)
                (best, least) = (parts, cost);
        }
        return best;
    }

    private static int Count(int size, int per) => (int)(((long)size + per - 1) / per);
}
