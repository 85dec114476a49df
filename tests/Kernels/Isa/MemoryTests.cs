using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Kernels.Isa;

public sealed class MemoryTests
{
    // 16-byte aligned start, and it does not move.
    private static uint[] Words()
    {
        uint[] words = GC.AllocateArray<uint>(20, pinned: true);
        for (int i = 0; i < words.Length; i++)
            words[i] = (uint)i;
        return words;
    }

    private static unsafe int AlignedStart(uint[] words)
    {
        fixed (uint* p = words)
            return (int)((16 - ((nuint)p & 15)) % 16 / 4);
    }

    [Fact]
    public void A_misaligned_address_throws_and_names_the_instruction()
    {
        uint[] words = Words();
        int at = AlignedStart(words);
        Throws("ld.global.v4", () => Mem.LoadGlobal(ref words[at + 2]));
        Throws("ld.global.nc.v4", () => Mem.LoadStream(ref words[at + 1]));
        Throws("ld.global.nc.v4", () => Mem.LoadReadOnly(ref words[at + 3]));
        Throws("ld.global.v2", () => Mem.LoadGlobal2(ref words[at + 1]));
        Throws("ld.global.nc.v2", () => Mem.LoadStream2(ref words[at + 3]));
        Throws("st.global.v4", () => Mem.StoreGlobal(ref words[at + 2], default));
        Throws("st.global.cs.v4", () => Mem.StoreStream(ref words[at + 2], default));
        Throws("st.global.v2", () => Mem.StoreGlobal2(ref words[at + 1], default));
        Throws("ld.shared.v4", () => Mem.LoadShared(ref words[at + 2]));
        Throws("ld.shared.v2", () => Mem.LoadShared2(ref words[at + 1]));
        Throws("st.shared.v4", () => Mem.StoreShared(ref words[at + 2], default));
        Throws("st.shared.v2", () => Mem.StoreShared2(ref words[at + 1], default));
        Assert.Equal(Words(), words);

        static void Throws(string instruction, Action access) =>
            Assert.Contains(instruction, Assert.Throws<InvalidOperationException>(access).Message);
    }

    [Fact]
    public void Loads_take_consecutive_words()
    {
        uint[] words = Words();
        int at = AlignedStart(words);
        foreach (U4 v in new[] { Mem.LoadGlobal(ref words[at + 4]), Mem.LoadStream(ref words[at + 4]), Mem.LoadReadOnly(ref words[at + 4]), Mem.LoadL2(ref words[at + 4]) })
            Assert.Equal(((uint)at + 4, (uint)at + 5, (uint)at + 6, (uint)at + 7), (v.X, v.Y, v.Z, v.W));
        foreach (U2 v in new[] { Mem.LoadGlobal2(ref words[at + 2]), Mem.LoadStream2(ref words[at + 2]) })
            Assert.Equal(((uint)at + 2, (uint)at + 3), (v.X, v.Y));
        Assert.Equal((uint)at + 1, Mem.LoadGlobal1(ref words[at + 1]));
        Assert.Equal((uint)at + 1, Mem.LoadL2Word(ref words[at + 1]));
        Assert.Equal((uint)at + 3, Mem.LoadStream1(ref words[at + 3]));
    }

    /// <summary>Global to shared to global and back again, in both widths.</summary>
    internal static void ThroughShared(ArrayView<uint> input, ArrayView<uint> output)
    {
        ArrayView<uint> shared = SharedMemory.Allocate<U4>(16).Cast<uint>();
        int at = Group.IdxX * 16;
        Mem.StoreShared(ref shared[at], Mem.LoadStream(ref input[at]));
        Mem.StoreShared2(ref shared[at + 4], Mem.LoadGlobal2(ref input[at + 4]));
        Mem.StoreShared2(ref shared[at + 6], Mem.LoadStream2(ref input[at + 6]));
        Mem.StoreGlobal(ref output[at], Mem.LoadShared(ref shared[at + 4]));
        Mem.StoreGlobal2(ref output[at + 4], Mem.LoadShared2(ref shared[at]));
        Mem.StoreGlobal2(ref output[at + 6], Mem.LoadShared2(ref shared[at + 2]));
        Mem.StoreStream(ref output[at + 8], Mem.LoadGlobal(ref input[at + 8]));
    }

    [Fact]
    public void Shared_and_global_round_trip()
    {
        using var warp = new CpuWarp(2);
        uint[] output = warp.Launch(ThroughShared, [.. Enumerable.Range(0, 32).Select(i => (uint)i)], 32);
        uint[] once = [4, 5, 6, 7, 0, 1, 2, 3, 8, 9, 10, 11, 0, 0, 0, 0];
        Assert.Equal([.. once, .. once.Select((x, i) => i < 12 ? x + 16 : 0)], output);
    }
}
