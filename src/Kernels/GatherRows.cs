using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>output[i] = input[order[i] / RowsPerInput], rows of 16-byte words. One warp's worth of threads a row, grid stride.</summary>
internal static class GatherRows
{
    /// <summary>Threads that share a row.</summary>
    public const int ThreadsPerRow = 32;

    internal struct Args
    {
        /// <summary>[Inputs, 4·Words].</summary>
        public ArrayView<uint> Input;

        /// <summary>[Rows].</summary>
        public ArrayView<int> Order;

        /// <summary>[Rows, 4·Words].</summary>
        public ArrayView<uint> Output;

        public int Rows;
        public int Inputs;
        public int RowsPerInput;

        /// <summary>16-byte words of a row.</summary>
        public int Words;
    }

    public static void Run(Args a)
    {
        int thread = Group.IdxX & (ThreadsPerRow - 1), rowsInBlock = Group.DimX / ThreadsPerRow;
        for (long row = ((long)Grid.IdxX * rowsInBlock) + (Group.IdxX / ThreadsPerRow); row < a.Rows; row += (long)Grid.DimX * rowsInBlock)
        {
            int source = a.Order[row];
            // Pairs without an expert left their places as they were.
            int input = source < 0 ? -1 : source / a.RowsPerInput;
            if (input < 0 || input >= a.Inputs)
                continue;
            for (int word = thread; word < a.Words; word += ThreadsPerRow)
                Mem.StoreGlobal(ref a.Output[((row * a.Words) + word) * 4], Mem.LoadGlobal(ref a.Input[(((long)input * a.Words) + word) * 4]));
        }
    }
}
