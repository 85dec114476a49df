using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Kernels.Isa;

public sealed class CpAsyncTests : IDisposable
{
    private const uint Old = 0xDEADBEEF;

    private readonly CpuWarp warp = new(2);
    private readonly uint[] source = [.. Enumerable.Range(0, 64).Select(i => (uint)i + 1)];

    public void Dispose() => warp.Dispose();

    private static ArrayView<uint> OldContents()
    {
        ArrayView<uint> shared = SharedMemory.Allocate<U4>(16).Cast<uint>();
        for (int i = Group.IdxX; i < 64; i += Group.DimX)
            shared[i] = Old;
        Block.Barrier();
        return shared;
    }

    /// <summary>Two groups of one copy; the destination is read after start, commit, wait 1 and wait 0.</summary>
    internal static void ReadAtEachStage(ArrayView<uint> source, ArrayView<uint> output)
    {
        ArrayView<uint> shared = OldContents();
        int lane = Group.IdxX, at = lane * 8;
        CpAsync.Copy16(ref shared[at], ref source[at]);
        output[lane * 8] = shared[at];
        CpAsync.Commit();
        CpAsync.Copy16(ref shared[at + 4], ref source[at + 4]);
        CpAsync.Commit();
        output[lane * 8 + 1] = shared[at];
        CpAsync.Wait(2);
        output[lane * 8 + 2] = shared[at];
        source[at] += 1000; // the copy may read as late as the wait: this one does
        CpAsync.Wait(1);
        output[lane * 8 + 3] = shared[at];
        output[lane * 8 + 4] = shared[at + 4];
        CpAsync.Wait(0);
        output[lane * 8 + 5] = shared[at + 4];
        output[lane * 8 + 6] = shared[at + 7];
    }

    [Fact]
    public void Nothing_arrives_before_the_wait_for_its_group()
    {
        uint[] output = warp.Launch(ReadAtEachStage, source, 16);
        for (uint lane = 0; lane < 2; lane++)
            Assert.Equal([Old, Old, Old, 1001 + lane * 8, Old, 5 + lane * 8, 8 + lane * 8, 0u], output[((int)lane * 8)..((int)lane * 8 + 8)]);
    }

    /// <summary>Lane 0 only: the widths without a number of source bytes.</summary>
    internal static void Whole(ArrayView<uint> source, ArrayView<uint> output)
    {
        ArrayView<uint> shared = OldContents();
        if (Group.IdxX == 0)
        {
            CpAsync.Copy16(ref shared[0], ref source[0]);
            CpAsync.Copy8(ref shared[6], ref source[4]);
            CpAsync.Copy4(ref shared[9], ref source[7]);
            CpAsync.WaitAll();
            for (int i = 0; i < 12; i++)
                output[i] = shared[i];
        }
    }

    [Fact]
    public void Whole_copies_copy_their_width()
    {
        uint[] output = warp.Launch(Whole, source, 12);
        Assert.Equal([1, 2, 3, 4, Old, Old, 5, 6, Old, 8, Old, Old], output);
    }

    /// <summary>Lane 0 only: each width with every number of source bytes that is a multiple of 4, uncommitted until wait_all.</summary>
    internal static void ZeroFill(ArrayView<uint> source, ArrayView<uint> output)
    {
        ArrayView<uint> shared = OldContents();
        if (Group.IdxX == 0)
        {
            for (int words = 0; words <= 4; words++)
                CpAsync.Copy16ZeroFill(ref shared[words * 4], ref source[words * 4], words * 4);
            for (int words = 0; words <= 2; words++)
                CpAsync.Copy8ZeroFill(ref shared[20 + words * 2], ref source[20 + words * 2], words * 4);
            for (int words = 0; words <= 1; words++)
                CpAsync.Copy4ZeroFill(ref shared[26 + words], ref source[26 + words], words * 4);
            CpAsync.Copy16ZeroFill(ref shared[28], ref source[28], 7);
            output[32] = shared[0];
            CpAsync.WaitAll();
            for (int i = 0; i < 32; i++)
                output[i] = shared[i];
        }
    }

    [Fact]
    public void The_rest_of_a_short_copy_is_zero()
    {
        source[29] = 0x44332211;
        uint[] output = warp.Launch(ZeroFill, source, 33);
        uint[] expected =
        [
            0, 0, 0, 0, 5, 0, 0, 0, 9, 10, 0, 0, 13, 14, 15, 0, 17, 18, 19, 20, 0, 0, 23, 0, 25, 26, 0, 28,
            29, 0x332211, 0, 0, Old,
        ];
        Assert.Equal(expected, output);
    }

    /// <summary>Lane 0 only: a copy that is present and one that is not, a constant number of bytes on.</summary>
    internal static void Present(ArrayView<uint> source, ArrayView<uint> output)
    {
        ArrayView<uint> shared = OldContents();
        if (Group.IdxX == 0)
        {
            ArrayView<U4> words = source.Cast<U4>();
            CpAsync.Copy16At(ref shared[0], 16, ref words[1], 1);
            CpAsync.Copy16At(ref shared[4], 32, ref words[2], 0);
            CpAsync.Copy16OfLineAt(ref shared[8], 32, ref words[1], 1);
            CpAsync.Copy16OfLineAt(ref shared[12], 32, ref words[2], 0);
            CpAsync.WaitAll();
            for (int i = 0; i < 24; i++)
                output[i] = shared[i];
        }
    }

    [Fact]
    public void A_copy_that_is_not_present_is_zeros() =>
        Assert.Equal([Old, Old, Old, Old, 5, 6, 7, 8, Old, Old, Old, Old, 0, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0], warp.Launch(Present, source, 24));

    /// <summary>Commits a copy and never waits for it.</summary>
    internal static void NeverWait(ArrayView<uint> source, ArrayView<uint> output)
    {
        ArrayView<uint> shared = OldContents();
        CpAsync.Copy16(ref shared[Group.IdxX * 4], ref source[0]);
        CpAsync.Commit();
        output[Group.IdxX] = shared[Group.IdxX * 4];
    }

    /// <summary>Every group: what do waits see first, then a copy that is left behind.</summary>
    internal static void WaitThenNeverWait(ArrayView<uint> source, ArrayView<uint> output)
    {
        ArrayView<uint> shared = OldContents();
        CpAsync.WaitAll();
        output[Grid.IdxX * Group.DimX + Group.IdxX] = shared[Group.IdxX * 4];
        CpAsync.Copy16(ref shared[Group.IdxX * 4], ref source[0]);
        CpAsync.Commit();
    }

    [Fact]
    public void Copies_left_behind_reach_no_later_kernel_or_group()
    {
        Assert.All(warp.Launch(NeverWait, source, 2), word => Assert.Equal(Old, word));
        Assert.All(warp.Launch(WaitThenNeverWait, source, 8, groups: 4), word => Assert.Equal(Old, word));
    }
}
