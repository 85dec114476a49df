using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Sorts (token, slot) pairs by expert, stably: order = the pairs of expert 0, then of expert 1, …; offsets[e] = where those
/// of e begin. One block an expert, grid stride, no atomics and no workspace: the block counts the pairs of lower experts
/// (its offset) and of its own, each thread over a run of consecutive pairs, scans the threads' counts, and writes its own
/// pairs in order. Reading all ids once an expert costs less than a multi-pass sort for the sizes of a prefill.
/// </summary>
internal static class ExpertSort
{
    public const int MaxThreads = 1024;

    internal struct Args
    {
        /// <summary>[Pairs].</summary>
        public ArrayView<int> ExpertIds;

        /// <summary>[Pairs].</summary>
        public ArrayView<int> Order;

        /// <summary>[Experts + 1].</summary>
        public ArrayView<int> Offsets;

        public int Pairs;
        public int Experts;
    }

    public static void Run(Args a)
    {
        ArrayView<int> own = SharedMemory.Allocate<int>(MaxThreads);
        ArrayView<int> lower = SharedMemory.Allocate<int>(MaxThreads);
        ArrayView<int> ownGroups = SharedMemory.Allocate<int>(MaxThreads / 16);
        ArrayView<int> lowerGroups = SharedMemory.Allocate<int>(MaxThreads / 16);
        int run = (int)((a.Pairs + (long)Group.DimX - 1) / Group.DimX);
        long begin = (long)Group.IdxX * run;
        long end = begin + run < a.Pairs ? begin + run : a.Pairs;
        int groups = (Group.DimX + 15) >> 4;
        for (int expert = Grid.IdxX; expert < a.Experts; expert += Grid.DimX)
        {
            int ownCount = 0, lowerCount = 0;
            for (long i = begin; i < end; i++)
            {
                // Ids out of range belong to no expert: a negative one is not lower than any.
                int id = a.ExpertIds[i];
                ownCount += id == expert ? 1 : 0;
                lowerCount += id >= 0 && id < expert ? 1 : 0;
            }
            own[Group.IdxX] = ownCount;
            lower[Group.IdxX] = lowerCount;
            Block.Barrier(); // the threads' counts are written before they are added up
            if (Group.IdxX < groups)
            {
                ownGroups[Group.IdxX] = SumOfGroup(own, Group.IdxX);
                lowerGroups[Group.IdxX] = SumOfGroup(lower, Group.IdxX);
            }
            Block.Barrier(); // the groups' counts are written before they are added up

            int target = 0, ownTotal = 0;
            for (int g = 0; g < groups; g++)
            {
                target += lowerGroups[g] + (g < Group.IdxX >> 4 ? ownGroups[g] : 0);
                ownTotal += ownGroups[g];
            }
            for (int t = (Group.IdxX >> 4) << 4; t < Group.IdxX; t++)
                target += own[t];
            if (Group.IdxX == 0)
            {
                a.Offsets[expert] = target;
                if (expert == a.Experts - 1)
                    a.Offsets[a.Experts] = target + ownTotal;
            }
            for (long i = begin; i < end; i++)
            {
                if (a.ExpertIds[i] == expert)
                    a.Order[target++] = (int)i;
            }
            Block.Barrier(); // the counts are read before the next expert's overwrite them
        }
    }

    private static int SumOfGroup(ArrayView<int> counts, int group)
    {
        int sum = 0;
        int end = (group + 1) << 4;
        end = end < Group.DimX ? end : Group.DimX;
        for (int t = group << 4; t < end; t++)
            sum += counts[t];
        return sum;
    }
}
