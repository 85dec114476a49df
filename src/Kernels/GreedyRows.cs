using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary><see cref="GreedySampler"/> for some rows of logits at once: blocks along y are rows.</summary>
internal static class GreedyRows
{
    /// <summary>A row is a bit of a mask.</summary>
    public const int MostRows = 32;

    internal struct Args
    {
        /// <summary>[Rows, Vocabulary] float32.</summary>
        public ArrayView<float> Logits;

        /// <summary>[Rows]: the largest key so far; zero between draws.</summary>
        public ArrayView<ulong> Best;

        /// <summary>[Rows]: negative where nothing is to be drawn.</summary>
        public ArrayView<int> Positions;

        /// <summary>[Rows]: the tokens.</summary>
        public ArrayView<int> Tokens;

        public int Vocabulary;

        /// <summary>Bit r: whether row r is drawn here.</summary>
        public uint Mask;
    }

    public static void RunFind(Args a)
    {
        ArrayView<float> values = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        ArrayView<int> indices = SharedMemory.Allocate<int>(BlockOps.MaxWarps);
        GridDependency.Release();
        GridDependency.Wait();
        // The same for the whole block.
        if (!IsDrawn(a, Grid.IdxY))
            return;
        GreedySampler.Find(a.Logits.SubView((long)Grid.IdxY * a.Vocabulary, a.Vocabulary), a.Best.SubView(Grid.IdxY, 1), values, indices);
    }

    /// <summary>One block, a thread a row.</summary>
    public static void RunTake(Args a)
    {
        GridDependency.Release();
        GridDependency.Wait();
        for (int row = Group.IdxX; Grid.IdxX == 0 && row < a.Best.Length; row += Group.DimX)
        {
            if (!IsDrawn(a, row))
                continue;
            a.Tokens[row] = GreedySampler.TokenOf(a.Best[row]);
            a.Best[row] = 0;
        }
    }

    private static bool IsDrawn(Args a, int row) => ((a.Mask >> row) & 1) != 0 && a.Positions[row] >= 0;
}
