namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// What the copy engine must know of a matrix in global memory (CUtensorMap, 128 bytes): made on the host, passed to a kernel by
/// value, used by its address. On the CPU the fields hold what <see cref="TensorMapFields"/> says.
/// </summary>
internal struct TensorMap
{
    public TensorMapPart A, B, C, D;
}

/// <summary>A quarter of a <see cref="TensorMap"/>.</summary>
internal struct TensorMapPart
{
    public ulong A, B, C, D;
}

/// <summary>A row-major matrix and the tile of it that one copy moves.</summary>
/// <param name="Address">First element; 16-byte aligned.</param>
/// <param name="ElementBytes">1 (codes, E4M3 multipliers), 2 (BF16) or 4 (float32).</param>
/// <param name="Columns">Elements of a row.</param>
/// <param name="Rows">Rows.</param>
/// <param name="StrideBytes">Bytes between rows, a multiple of 16.</param>
/// <param name="TileColumns">Elements of a tile's row: 128 bytes, or 64 or 16 without exchanged words. A tile begins at a multiple of 16 bytes of a row: elsewhere the copy is an illegal instruction.</param>
/// <param name="TileRows">Rows of a tile, at most 256.</param>
/// <param name="Promotes">Whether the memory is asked for 256 bytes of a row where a tile has 128: its neighbour will soon be needed by somebody, too.</param>
/// <param name="Swizzles">Whether words of a row are exchanged. Not for rows of fewer than 128 bytes, which then come out as if they were 128 bytes apart.</param>
internal readonly record struct TensorMapFields(long Address, int ElementBytes, long Columns, long Rows, long StrideBytes, int TileColumns, int TileRows, bool Promotes = true, bool Swizzles = true)
{
    /// <summary>Whether a tile may begin at that column: at a whole word of 16 bytes.</summary>
    public bool CanBegin(int column) => (long)column * ElementBytes % 16 == 0;

    /// <summary>The map of the CPU device.</summary>
    public TensorMap ForCpu() => new()
    {
        A = new TensorMapPart { A = (ulong)Address, B = (ulong)ElementBytes, C = (ulong)Columns, D = (ulong)Rows },
        B = new TensorMapPart { A = (ulong)StrideBytes, B = (ulong)TileColumns, C = (ulong)TileRows, D = Swizzles ? 1u : 0 },
    };

    /// <summary>The fields of a map of the CPU device.</summary>
    public static TensorMapFields OfCpu(in TensorMap map) =>
        new((long)map.A.A, (int)map.A.B, (long)map.A.C, (long)map.A.D, (long)map.B.A, (int)map.B.B, (int)map.B.C, Swizzles: map.B.D != 0);
}
