using System.Runtime.CompilerServices;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// The copy engine of sm_90: one thread moves a whole tile between a matrix in global memory and shared memory. Rows of a tile
/// are 128 bytes, their 16-byte words exchanged by the row's number modulo 8 (128-byte swizzle, on addresses that are multiples of 1,024), which
/// is how the tensor cores read them without bank conflicts; or 64 or 16 bytes, in order. What a tile has beyond the matrix is zero when loaded and dropped when stored.
/// </summary>
/// <remarks>
/// A map is named twice: by value, for the emulation, and by its distance in bytes from the start of the kernel's arguments, where it
/// stands. Copies of the emulation are done when the call returns.
/// </remarks>
internal static unsafe class Tma
{
    private const int Arch = 90;
    private const string MapAddress = "{ .reg .b64 map; mov.b64 map, KERNEL_ARGUMENTS; cvta.param.u64 map, map; add.s64 map, map, %c1; ";

    /// <summary>Loads the tile at (<paramref name="column"/>, <paramref name="row"/>) and reports its bytes to the barrier.</summary>
    [IntrinsicImplementation, Ptx(MapAddress + "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%2], [map, {%3, %4}], [%5]; }", MinArch = Arch)]
    public static void Load(TensorMap map, int offset, uint shared, int column, int row, uint barrier)
    {
        TensorMapFields fields = Fields(map, column);
        int width = fields.TileColumns * fields.ElementBytes;
        for (int r = 0; r < fields.TileRows; r++)
        {
            for (int c = 0; c < fields.TileColumns; c++)
            {
                uint at = shared + (uint)((r * width) + (c * fields.ElementBytes));
                byte* to = SharedWindow.Pointer(fields.Swizzles ? SharedWindow.Swizzle128(at) : at);
                if (row + r < fields.Rows && column + c < fields.Columns)
                    Unsafe.CopyBlock(to, Element(fields, row + r, column + c), (uint)fields.ElementBytes);
                else
                    Unsafe.InitBlock(to, 0, (uint)fields.ElementBytes);
            }
        }
        Mbarrier.Complete(barrier, fields.TileRows * width);
    }

    /// <summary>Fetches a map to where copies look it up, so that the first copy does not wait for it.</summary>
    [IntrinsicImplementation, Ptx(MapAddress + "prefetch.tensormap [map]; }", MinArch = Arch)]
    public static void Prefetch(TensorMap map, int offset)
    {
    }

    /// <summary>The same into every block of the cluster that has a bit in <paramref name="blocks"/>, at the same address, reported to each one's own barrier.</summary>
    [IntrinsicImplementation, Ptx(MapAddress + ".reg .b16 blocks; cvt.u16.u32 blocks, %6; cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%2], [map, {%3, %4}], [%5], blocks; }", MinArch = Arch)]
    public static void LoadForCluster(TensorMap map, int offset, uint shared, int column, int row, uint barrier, uint blocks) =>
        throw new NotSupportedException("The CPU device has no clusters.");

    /// <summary>Stores the tile in shared memory to (<paramref name="column"/>, <paramref name="row"/>); asynchronous.</summary>
    [IntrinsicImplementation, Ptx(MapAddress + "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [map, {%3, %4}], [%2]; }", MinArch = Arch)]
    public static void Store(TensorMap map, int offset, uint shared, int column, int row)
    {
        TensorMapFields fields = Fields(map, column);
        int width = fields.TileColumns * fields.ElementBytes;
        for (int r = 0; r < fields.TileRows && row + r < fields.Rows; r++)
            for (int c = 0; c < fields.TileColumns && column + c < fields.Columns; c++)
                Unsafe.CopyBlock(Element(fields, row + r, column + c), SharedWindow.Pointer(SharedWindow.Swizzle128(shared + (uint)((r * width) + (c * fields.ElementBytes)))), (uint)fields.ElementBytes);
    }

    /// <summary>Closes the group of the stores since the last commit (an empty group counts too).</summary>
    [IntrinsicImplementation, Ptx("cp.async.bulk.commit_group;", MinArch = Arch)]
    public static void Commit()
    {
    }

    /// <summary>Waits until all but the latest <paramref name="groups"/> (a constant) have been read from shared memory.</summary>
    [IntrinsicImplementation, Ptx("cp.async.bulk.wait_group.read %c0;", MinArch = Arch)]
    public static void WaitRead(int groups)
    {
    }

    /// <summary>Orders this thread's ordinary writes to shared memory before what copies and tensor cores read afterwards.</summary>
    [IntrinsicImplementation, Ptx("fence.proxy.async.shared::cta;", MinArch = Arch)]
    public static void FenceShared()
    {
    }

    private static TensorMapFields Fields(TensorMap map, int column)
    {
        TensorMapFields fields = TensorMapFields.OfCpu(map);
        return fields.CanBegin(column) ? fields : throw new InvalidOperationException($"A tile begins at element {column} of a row, {fields.ElementBytes} bytes each, not at a multiple of 16 bytes: an illegal instruction on a card.");
    }

    private static byte* Element(in TensorMapFields fields, long row, long column) =>
        (byte*)fields.Address + (row * fields.StrideBytes) + (column * fields.ElementBytes);
}
