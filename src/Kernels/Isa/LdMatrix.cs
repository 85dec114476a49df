using System.Runtime.CompilerServices;
using ILGPU;
using ILGPU.IR.Intrinsics;

namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>Loads 8×8 matrices of 16-bit elements from shared memory into the registers that <c>mma</c> expects.</summary>
/// <remarks>
/// Lane <c>8·m + r</c> gives the address of row <c>r</c> of matrix <c>m</c>: 16 bytes, 16-byte aligned. The addresses of
/// the lanes beyond <c>8·matrices</c> are ignored. Register <c>m</c> of lane <c>l</c> receives the elements
/// <c>[l / 4, 2·(l % 4)]</c> and the next of matrix <c>m</c>, low half first; <c>Trans</c> those of its transpose.
/// </remarks>
internal static unsafe class LdMatrix
{
    /// <summary>One matrix; addresses of lanes 0–7.</summary>
    [IntrinsicImplementation, Ptx("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%d}, [%s0];")]
    public static uint X1(ref ushort row) => Load(ref row, 1, false).X;

    /// <summary>Two matrices; addresses of lanes 0–15.</summary>
    [IntrinsicImplementation, Ptx("ldmatrix.sync.aligned.m8n8.x2.shared.b16 %d, [%s0];")]
    public static U2 X2(ref ushort row) => Low(Load(ref row, 2, false));

    /// <summary>Four matrices; addresses of all lanes.</summary>
    [IntrinsicImplementation, Ptx("ldmatrix.sync.aligned.m8n8.x4.shared.b16 %d, [%s0];")]
    public static U4 X4(ref ushort row) => Load(ref row, 4, false);

    /// <summary>Four matrices, all a constant number of bytes behind the addresses.</summary>
    [IntrinsicImplementation, Ptx("ldmatrix.sync.aligned.m8n8.x4.shared.b16 %d, [%s0+%c1];")]
    public static U4 X4At(ref ushort row, int bytes) => Load(ref Unsafe.AddByteOffset(ref row, bytes), 4, false);

    /// <summary>One matrix, transposed; addresses of lanes 0–7.</summary>
    [IntrinsicImplementation, Ptx("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%d}, [%s0];")]
    public static uint X1Trans(ref ushort row) => Load(ref row, 1, true).X;

    /// <summary>Two matrices, each transposed; addresses of lanes 0–15.</summary>
    [IntrinsicImplementation, Ptx("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 %d, [%s0];")]
    public static U2 X2Trans(ref ushort row) => Low(Load(ref row, 2, true));

    /// <summary>Four matrices, each transposed; addresses of all lanes.</summary>
    [IntrinsicImplementation, Ptx("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 %d, [%s0];")]
    public static U4 X4Trans(ref ushort row) => Load(ref row, 4, true);

    /// <summary>Four matrices, each transposed, all a constant number of bytes behind the addresses.</summary>
    [IntrinsicImplementation, Ptx("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 %d, [%s0+%c1];")]
    public static U4 X4TransAt(ref ushort row, int bytes) => Load(ref Unsafe.AddByteOffset(ref row, bytes), 4, true);

    private static U2 Low(U4 v) => new() { X = v.X, Y = v.Y };

    private static U4 Load(ref ushort row, int matrices, bool transposed)
    {
        // Element [r, c] of matrix m stands at m·64 + r·8 + c, which is lane·8 + c: each lane writes the row it addresses.
        ushort* elements = WarpEmulation.Begin<ushort>("ldmatrix.sync", lanes: 32);
        int lane = Warp.LaneIdx;
        if (lane < 8 * matrices)
        {
            void* address = Unsafe.AsPointer(ref row);
            Mem.CheckAligned(address, 16, "ldmatrix");
            Unsafe.CopyBlock(elements + 8 * lane, address, 16);
        }

        WarpEmulation.Meet();
        uint* words = stackalloc uint[4];
        int line = lane >> 2, pair = 2 * (lane & 3);
        for (int m = 0; m < matrices; m++)
        {
            ushort* matrix = elements + 64 * m;
            words[m] = transposed
                ? matrix[pair * 8 + line] | (uint)matrix[(pair + 1) * 8 + line] << 16
                : matrix[line * 8 + pair] | (uint)matrix[line * 8 + pair + 1] << 16;
        }

        return new U4 { X = words[0], Y = words[1], Z = words[2], W = words[3] };
    }
}
