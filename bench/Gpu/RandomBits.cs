using GpuKit.Ilgpu.Runtime;
using ILGPU;

namespace GpuKit.Ilgpu.Bench;

/// <summary>Random words made on the device; a mask keeps them valid numbers of a format.</summary>
internal static class RandomBits
{
    private const int Threads = 256;

    internal struct Args
    {
        public ArrayView<uint> Words;
        public uint Seed;
        public uint Keep;
        public uint Set;
    }

    internal static readonly KernelDefinition<Args> FillWords = new(Run, new KernelTraits(Threads));

    internal static void Run(Args a)
    {
        long stride = (long)Grid.DimX * Group.DimX;
        for (long i = ((long)Grid.IdxX * Group.DimX) + Group.IdxX; i < a.Words.Length; i += stride)
        {
            // A finaliser of MurmurHash3: every bit of the index reaches every bit of the word.
            uint h = ((uint)(int)i * 2654435761u) ^ a.Seed ^ (uint)(int)(i >> 32);
            h ^= h >> 16;
            h *= 0x85EBCA6Bu;
            h ^= h >> 13;
            h *= 0xC2B2AE35u;
            h ^= h >> 16;
            a.Words[i] = (h & a.Keep) | a.Set;
        }
    }

    /// <summary>words = (random &amp; keep) | set.</summary>
    public static void Fill(GpuStream stream, ArrayView<uint> words, uint seed, uint keep, uint set) =>
        stream.Device.Launch(FillWords, stream, (stream.Device.MultiprocessorCount * 16, 1, 1), Threads, 0, new Args { Words = words, Seed = seed * 0x9E3779B9u, Keep = keep, Set = set });
}
