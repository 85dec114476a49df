using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// The positions of an FP8 layer that some tokens see, as BF16: code · scale, rounded. A thread takes 16 codes of a key and as many of a value (grid stride).
/// </summary>
internal static class KvExpand
{
    internal struct Args
    {
        /// <summary>[KvHeads, Capacity, HeadDim] E4M3 codes, four a word.</summary>
        public ArrayView<uint> KeyCodes;

        /// <summary>As KeyCodes.</summary>
        public ArrayView<uint> ValueCodes;

        /// <summary>[KvHeads, Capacity] float32.</summary>
        public ArrayView<float> KeyScales;

        /// <summary>As KeyScales.</summary>
        public ArrayView<float> ValueScales;

        /// <summary>[KvHeads, Capacity, HeadDim] BF16, two a word.</summary>
        public ArrayView<uint> Keys;

        /// <summary>As Keys.</summary>
        public ArrayView<uint> Values;

        /// <summary>[1]: position of the first token.</summary>
        public ArrayView<int> Position;

        public int Tokens;
        public int KvHeads;
        public int Capacity;

        /// <summary>16 codes each.</summary>
        public int UnitsPerHead;
    }

    public static void Run(Args a)
    {
        long end = (long)a.Position[0] + a.Tokens;
        // What lies outside the cache is nobody's.
        int positions = a.Position[0] < 0 ? 0 : (int)(end < a.Capacity ? end : a.Capacity), perHead = positions * a.UnitsPerHead;
        long stride = (long)Grid.DimX * Group.DimX;
        for (int head = 0; head < a.KvHeads; head++)
            for (long i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < perHead; i += stride)
            {
                long first = (long)head * a.Capacity, row = first + ((int)i / a.UnitsPerHead), unit = (first * a.UnitsPerHead) + i;
                Expand(a.KeyCodes, a.KeyScales[row], a.Keys, unit);
                Expand(a.ValueCodes, a.ValueScales[row], a.Values, unit);
            }
    }

    private static void Expand(ArrayView<uint> codes, float scale, ArrayView<uint> numbers, long unit)
    {
        U4 four = Mem.LoadGlobal(ref codes[unit * 4]);
        Mem.StoreGlobal(ref numbers[unit * 8], Eight(four.X, four.Y, scale));
        Mem.StoreGlobal(ref numbers[(unit * 8) + 4], Eight(four.Z, four.W, scale));
    }

    private static U4 Eight(uint x, uint y, float scale)
    {
        U4 words;
        words.X = Two(Fp8BitMove.DecodePair(x, 0, default), scale);
        words.Y = Two(Fp8BitMove.DecodePair(x, 1, default), scale);
        words.Z = Two(Fp8BitMove.DecodePair(y, 0, default), scale);
        words.W = Two(Fp8BitMove.DecodePair(y, 1, default), scale);
        return words;
    }

    private static uint Two(uint pair, float scale) => Bf16.Pack(Bf16.Low(pair) * scale, Bf16.High(pair) * scale);
}
