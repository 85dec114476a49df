using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>output[t, i] = table[ids[t], i] in float32; NaN for an id outside the table. One thread an element, grid stride.</summary>
internal static class Embedding
{
    internal struct Args
    {
        /// <summary>[Vocabulary, Width] BF16.</summary>
        public ArrayView<ushort> Table;

        /// <summary>[Tokens].</summary>
        public ArrayView<int> TokenIds;

        /// <summary>[Tokens, Width] float32.</summary>
        public ArrayView<float> Output;

        public int Vocabulary;
        public int Width;
    }

    public static void Run(Args a)
    {
        long stride = (long)Grid.DimX * Group.DimX;
        for (long i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < a.Output.Length; i += stride)
        {
            long token = i / a.Width;
            int id = a.TokenIds[token];
            float value = float.NaN;
            if (id >= 0 && id < a.Vocabulary)
                value = Bf16.ToFloat(a.Table[((long)id * a.Width) + (i - (token * a.Width))]);
            a.Output[i] = value;
        }
    }
}
