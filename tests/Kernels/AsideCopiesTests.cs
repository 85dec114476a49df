using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Kernels;

/// <summary>Rows of a table in shared memory: every width of a copy, rows of fewer words than lanes and of more, and nothing beside them.</summary>
public sealed class AsideCopiesTests
{
    private const uint Old = 0xDEADBEEF;
    private const int SharedWords = 1024;

    private static readonly KernelDefinition<Args> Kernel = new(Run, new KernelTraits(128, NeedsWarp32: true));

    internal struct Args
    {
        public AsideRows Rows;
        public ArrayView<byte> Table;
        public ArrayView<uint> Output;
    }

    internal static void Run(Args a)
    {
        ArrayView<uint> shared = SharedMemory.Allocate<U4>(SharedWords / 4).Cast<uint>();
        for (int i = Group.IdxX; i < SharedWords; i += Group.DimX)
            shared[i] = Old;
        // Nobody copies over what another is about to clear.
        Block.Barrier();
        AsideCopies.Request(shared, a.Table, a.Rows);
        AsideCopies.Await();
        for (int i = Group.IdxX; i < SharedWords; i += Group.DimX)
            a.Output[i] = shared[i];
    }

    // Bytes of a row of the table, rows, first row of W, log2 of rows of W that share one, warps.
    public static TheoryData<TestDevice, int, int, int, int, int> Cases()
    {
        var cases = new TheoryData<TestDevice, int, int, int, int, int>();
        foreach (TestDevice device in new[] { TestDevice.CpuWarp32, TestDevice.Cuda })
        {
            foreach ((int bytes, int rows, int first, int shift, int warps) in new[]
            {
                (8, 32, 0, 0, 4), (16, 32, 5, 0, 2), (24, 9, 3, 0, 2), (40, 7, 0, 1, 3), (64, 17, 2, 2, 4), (72, 32, 1, 0, 1),
                (264, 3, 2, 0, 2), (4, 32, 0, 0, 2), (12, 32, 7, 0, 4), (132, 5, 1, 0, 2), (268, 3, 4, 3, 4), (1, 32, 0, 0, 2), (6, 11, 3, 0, 4), (35, 13, 2, 1, 2), (8, 0, 0, 0, 1),
            })
                cases.Add(device, bytes, rows, first, shift, warps);
        }
        return cases;
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void BringTheRowsAndNothingElse(TestDevice which, int bytes, int count, int first, int shift, int warps)
    {
        GpuDevice device = TestDevices.Get(which);
        byte[] table = [.. Enumerable.Range(0, ((first + count + 1) >> shift) * bytes + bytes).Select(i => (byte)((i * 37) + (i >> 8) + 1))];
        using DeviceBuffer<byte> stored = device.Upload<byte>(table);
        using DeviceBuffer<uint> output = device.Allocate<uint>(SharedWords);
        // Rows begin at multiples of 8 bytes.
        int to = 6, step = (((bytes + 7) >> 2) & ~3) + 2;
        var rows = new AsideRows { First = first, Count = count, Shift = shift, Bytes = bytes, To = to, ToStep = step };
        device.Launch(Kernel, device.DefaultStream, (1, 1, 1), 32 * warps, 0, new Args { Rows = rows, Table = stored.View, Output = output.View });
        byte[] expected = new byte[SharedWords * sizeof(uint)];
        for (int i = 0; i < SharedWords; i++)
            BitConverter.TryWriteBytes(expected.AsSpan(i * sizeof(uint)), Old);
        for (int row = 0; row < count; row++)
            table.AsSpan(((first + row) >> shift) * bytes, bytes).CopyTo(expected.AsSpan((to + (row * step)) * sizeof(uint)));
        Assert.Equal(expected, MemoryMarshal.AsBytes<uint>(output.ToArray(device.DefaultStream)).ToArray());
    }
}
