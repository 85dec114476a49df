using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>seen[tokens[i]] = 1; ids outside the vocabulary are ignored. One thread a token, grid stride; equal writes may race.</summary>
internal static class TokenMarks
{
    internal struct Args
    {
        /// <summary>[count].</summary>
        public ArrayView<int> Tokens;

        /// <summary>[Vocabulary].</summary>
        public ArrayView<byte> Seen;
    }

    public static void Run(Args a)
    {
        long stride = (long)Grid.DimX * Group.DimX;
        for (long i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < a.Tokens.Length; i += stride)
        {
            int token = a.Tokens[i];
            if (token >= 0 && token < a.Seen.Length)
                a.Seen[token] = 1;
        }
    }
}
