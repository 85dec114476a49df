using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Random weights made where they are used: element i is a hash of i and a seed, so a tensor does not depend on how it is cut or
/// on the device. One thread an element, grid stride.
/// </summary>
internal static class RandomFill
{
    internal struct Args
    {
        /// <summary>The elements' bytes: E4M3 codes, raw bytes, BF16 or float32.</summary>
        public ArrayView<byte> Target;

        public uint SeedLow;
        public uint SeedHigh;

        /// <summary>Numbers: their mean, or the least one.</summary>
        public float Offset;

        /// <summary>Numbers: their standard deviation, or the range above the least.</summary>
        public float Factor;

        /// <summary>Raw bytes: byte = (random and Keep) or Set.</summary>
        public uint Keep;
        public uint Set;
    }

    /// <summary>E4M3 codes of Offset + Factor·g with about Gaussian g; none is NaN.</summary>
    public static void RunE4M3(Args a)
    {
        long stride = (long)Grid.DimX * Group.DimX;
        for (long i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < a.Target.Length; i += stride)
            a.Target[i] = (byte)(Cvt.E4M3x2(0, Fast.Fma(Gaussian(Hash(a, i)), a.Factor, a.Offset)) & 0xFF);
    }

    /// <summary>BF16 of Offset + Factor·g.</summary>
    public static void RunBf16(Args a)
    {
        ArrayView<ushort> target = a.Target.Cast<ushort>();
        long stride = (long)Grid.DimX * Group.DimX;
        for (long i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < target.Length; i += stride)
            target[i] = Bf16.FromFloat(Fast.Fma(Gaussian(Hash(a, i)), a.Factor, a.Offset));
    }

    /// <summary>float32, evenly from Offset to Offset + Factor.</summary>
    public static void RunFloat32(Args a)
    {
        ArrayView<float> target = a.Target.Cast<float>();
        long stride = (long)Grid.DimX * Group.DimX;
        for (long i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < target.Length; i += stride)
            target[i] = Fast.Fma((float)(int)(Hash(a, i) >> 8) * (1f / 16777216f), a.Factor, a.Offset);
    }

    /// <summary>Bytes with some bits random.</summary>
    public static void RunBytes(Args a)
    {
        long stride = (long)Grid.DimX * Group.DimX;
        for (long i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < a.Target.Length; i += stride)
            a.Target[i] = (byte)((Hash(a, i) & a.Keep) | a.Set);
    }

    // The finaliser of MurmurHash3: every bit of index and seed reaches every bit of the result.
    private static uint Hash(Args a, long index)
    {
        uint h = ((uint)(index & 0xFFFFFFFF) * 2654435761u) ^ a.SeedLow ^ ((uint)((index >> 32) & 0xFFFFFFFF) * 0x9E3779B9u);
        h ^= h >> 16;
        h *= 0x85EBCA6Bu;
        h ^= (h >> 13) ^ a.SeedHigh;
        h *= 0xC2B2AE35u;
        return h ^ (h >> 16);
    }

    // The sum of four even numbers 0..255 less its mean, over its standard deviation: at most 3.46 in magnitude.
    private static float Gaussian(uint h)
    {
        int sum = (int)((h & 255) + ((h >> 8) & 255) + ((h >> 16) & 255) + (h >> 24));
        return (float)(sum - 510) * (1f / 147.8f);
    }
}
