namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): random bits as a function of a key and
/// a counter, so that a draw needs no state but its number.
/// </summary>
internal static class Philox
{
    /// <summary>The first 64 of the 128 bits of counter (<paramref name="counter"/>, 0) under key <paramref name="seed"/>; word 0 is the low half.</summary>
    public static ulong Next(ulong seed, ulong counter)
    {
        uint c0 = (uint)counter, c1 = (uint)(counter >> 32), c2 = 0, c3 = 0;
        uint k0 = (uint)seed, k1 = (uint)(seed >> 32);
        for (int round = 0; round < 10; round++)
        {
            ulong p0 = (ulong)c0 * 0xD2511F53ul;
            ulong p1 = (ulong)c2 * 0xCD9E8D57ul;
            c0 = (uint)(p1 >> 32) ^ c1 ^ k0;
            c1 = (uint)p1;
            c2 = (uint)(p0 >> 32) ^ c3 ^ k1;
            c3 = (uint)p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        return ((ulong)c1 << 32) | c0;
    }
}
