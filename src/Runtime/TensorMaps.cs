using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime.Driver;
using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu.Runtime;

/// <summary>Makes the descriptions of matrices that kernels hand to the copy engine. Costs a driver call of less than a microsecond and allocates nothing.</summary>
internal static unsafe class TensorMaps
{
    private const int Rank = 2, Uint8 = 0, Float32 = 7, BFloat16 = 9, Swizzle128 = 3, Promote128 = 2, Promote256 = 3;

    /// <summary>The map of a matrix for kernels of <paramref name="device"/>.</summary>
    /// <exception cref="GpuException">The driver refuses it.</exception>
    public static TensorMap Encode(GpuDevice device, in TensorMapFields matrix)
    {
        if (!device.IsCuda)
            return matrix.ForCpu();
        // The driver looks at the address in the thread's context.
        device.Bind();
        int type = matrix.ElementBytes switch { 1 => Uint8, 2 => BFloat16, _ => Float32 };
        ulong* sizes = stackalloc ulong[Rank] { (ulong)matrix.Columns, (ulong)matrix.Rows };
        ulong* strides = stackalloc ulong[Rank - 1] { (ulong)matrix.StrideBytes };
        uint* tile = stackalloc uint[Rank] { (uint)matrix.TileColumns, (uint)matrix.TileRows };
        uint* steps = stackalloc uint[Rank] { 1, 1 };
        // The driver wants the map itself on a multiple of 64 bytes.
        TensorMap* room = stackalloc TensorMap[2];
        TensorMap* map = (TensorMap*)(((nint)room + 63) & ~(nint)63);
        CudaError status = CudaDriver.cuTensorMapEncodeTiled(map, type, Rank, (nint)matrix.Address, sizes, strides, tile, steps, 0, matrix.Swizzles ? Swizzle128 : 0, matrix.Promotes ? Promote256 : Promote128, 0);
        device.Check(status, $"describing a matrix [{matrix.Rows:N0}, {matrix.Columns:N0}] of {matrix.ElementBytes}-byte elements to the copy engine");
        return *map;
    }
}
