using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Causal attention with grouped queries over the KV cache: o[t, h] = Σ_j softmax_j(q[t, h]·k[g, j] / √D)·v[g, j] over
/// j = 0..first + t, g = h / group, with a float32 online softmax. One block a (token, query head), grid stride; it walks the
/// positions in chunks. Scores: a thread a position, so a dot product needs no exchange. Values: a thread a pair of columns,
/// so neighbours read neighbouring words. The running output is in shared memory, since with few threads one owns many
/// columns. The order of every sum depends on the block size and on nothing else: not on other tokens, not on the capacity.
/// </summary>
internal static class Attention
{
    public const int MaxHeadDim = 256;
    private const int Chunk = 128;

    internal struct Args
    {
        /// <summary>[Tokens, QueryHeads, HeadDim] BF16.</summary>
        public ArrayView<ushort> Query;

        /// <summary>[KvHeads, Capacity, HeadDim] of one layer: BF16, two a word, or codes, four a word.</summary>
        public ArrayView<uint> Keys;

        /// <summary>As Keys.</summary>
        public ArrayView<uint> Values;

        /// <summary>[Tokens, QueryHeads, HeadDim] BF16.</summary>
        public ArrayView<ushort> Output;

        /// <summary>[1]: position of the first token.</summary>
        public ArrayView<int> Position;

        public int Tokens;
        public int QueryHeads;
        public int GroupSize;
        public int Capacity;
        public int HeadDim;
        public float Scale;

        /// <summary>Whether rows of keys can be read 16 bytes at a time.</summary>
        public int VectorLoads;

        /// <summary>[KvHeads, Capacity] float32, where the cache has codes.</summary>
        public ArrayView<float> KeyScales;

        /// <summary>As KeyScales.</summary>
        public ArrayView<float> ValueScales;
    }

    public static void Run<TCells>(Args a)
        where TCells : struct, IKvCells
    {
        ArrayView<float> query = SharedMemory.Allocate<float>(MaxHeadDim);
        ArrayView<float> sums = SharedMemory.Allocate<float>(MaxHeadDim);
        // Two chunks of weights used in turn: writing one needs no barrier after reading the other.
        ArrayView<float> weights = SharedMemory.Allocate<float>(2 * Chunk);
        ArrayView<float> scratch = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        int words = a.HeadDim >> 1;
        long items = (long)a.Tokens * a.QueryHeads;
        for (long item = Grid.IdxX; item < items; item += Grid.DimX)
        {
            long token = item / a.QueryHeads;
            int head = (int)(item - (token * a.QueryHeads));
            long length = a.Position[0] + token + 1;
            // A position outside the cache has no keys: 0 / 0 below makes its row NaN.
            int count = length >= 1 && length <= a.Capacity ? (int)length : 0;
            long cache = (long)(head / a.GroupSize) * a.Capacity;

            Block.Barrier(); // the previous item's last reads of query and weights come before the writes below
            for (int i = Group.IdxX; i < a.HeadDim; i += Group.DimX)
            {
                query[i] = Bf16.ToFloat(a.Query[(item * a.HeadDim) + i]) * a.Scale;
                sums[i] = 0;
            }
            Block.Barrier(); // query and sums are written before any thread reads them

            float max = float.NegativeInfinity;
            float total = 0;
            int turn = 0;
            for (int start = 0; start < count; start += Chunk)
            {
                int n = count - start < Chunk ? count - start : Chunk;
                ArrayView<float> chunk = weights.SubView(turn, Chunk);
                turn = Chunk - turn;
                float chunkMax = BlockOps.Max(Scores<TCells>(a, query, chunk, cache + start, n), scratch);
                float newMax = BlockOps.Larger(max, chunkMax);
                float decay = XMath.Exp(max - newMax);
                max = newMax;
                total *= decay;
                for (int j = Group.IdxX; j < n; j += Group.DimX)
                {
                    float weight = XMath.Exp(chunk[j] - max);
                    chunk[j] = weight;
                    total += weight;
                }
                // Weights are written before they are read; and all have left the other half, which the next chunk overwrites.
                Block.Barrier();
                TCells.Accumulate(a, chunk, sums, cache + start, n, decay);
            }
            float inverse = 1f / BlockOps.Sum(total, scratch);
            for (int i = Group.IdxX; i < words; i += Group.DimX)
            {
                long target = (item * a.HeadDim) + i + i;
                a.Output[target] = Bf16.FromFloat(sums[i + i] * inverse);
                a.Output[target + 1] = Bf16.FromFloat(sums[i + i + 1] * inverse);
            }
        }
    }

    /// <summary>This thread's scores of n keys from row <paramref name="first"/> on, and the largest (NaN if any is NaN).</summary>
    private static float Scores<TCells>(Args a, ArrayView<float> query, ArrayView<float> scores, long first, int n)
        where TCells : struct, IKvCells
    {
        float max = float.NegativeInfinity;
        for (int j = Group.IdxX; j < n; j += Group.DimX)
        {
            float score = TCells.Score(a, query, first + j);
            scores[j] = score;
            max = BlockOps.Larger(max, score);
        }
        return max;
    }
}
