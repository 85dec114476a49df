using System.Numerics;

namespace GpuKit.Ilgpu;

/// <summary>The part of a matrix that shares one scale: rows × columns, both powers of two, edge blocks may be partial. The default value is 128 × 128.</summary>
public readonly record struct ScaleBlock
{
    /// <summary>The block of published FP8 checkpoints.</summary>
    public static readonly ScaleBlock Square128 = new(128, 128);

    /// <summary>The usual group of INT4 weights: 128 columns of one row.</summary>
    public static readonly ScaleBlock Group128 = new(1, 128);

    /// <summary>The group of NVFP4, which its kernels know; no other format's may be as narrow.</summary>
    internal static readonly ScaleBlock Group16 = new((-Log128, 4 - Log128));

    // A step of the tensor-core kernel must not cross a block's edge.
    private const int LeastColumns = Kernels.GemmUnaligned.TileK;
    private const int Most = 1 << 20;
    private const int Log128 = 7;

    // Kernels and host count a block's elements in an int.
    private const long MostElements = 1 << 30;

    // Differences, so that the value without a constructor is a usable block.
    private readonly int rowShiftFrom128;
    private readonly int columnShiftFrom128;

    /// <summary>A block shape.</summary>
    /// <param name="rows">Rows (output features) that share a scale: a power of two from 1.</param>
    /// <param name="columns">Columns (input features) that share a scale: a power of two from 32.</param>
    /// <exception cref="ArgumentException">Not powers of two in range.</exception>
    public ScaleBlock(int rows, int columns)
    {
        if (!BitOperations.IsPow2(rows) || !BitOperations.IsPow2(columns) || columns < LeastColumns || rows > Most || columns > Most || (long)rows * columns > MostElements)
            throw new ArgumentException($"Scale blocks of {rows}×{columns} are not supported: both sides must be powers of two up to {Most}, columns from {LeastColumns}, {MostElements} elements at most.");
        rowShiftFrom128 = BitOperations.Log2((uint)rows) - Log128;
        columnShiftFrom128 = BitOperations.Log2((uint)columns) - Log128;
    }

    // Nothing is checked: for blocks that one format's own kernels read.
    private ScaleBlock((int Row, int Column) shiftsFrom128) => (rowShiftFrom128, columnShiftFrom128) = shiftsFrom128;

    /// <summary>Rows that share a scale.</summary>
    public int Rows => 1 << RowShift;

    /// <summary>Columns that share a scale.</summary>
    public int Columns => 1 << ColumnShift;

    /// <summary>Blocks along N for a matrix of <paramref name="n"/> rows.</summary>
    public int RowBlocks(int n) => (int)(((long)n + Rows - 1) / Rows);

    /// <summary>Blocks along K for a matrix of <paramref name="k"/> columns.</summary>
    public int ColumnBlocks(int k) => (int)(((long)k + Columns - 1) / Columns);

    /// <summary>Bytes of zero points, two a byte, rows of blocks on whole bytes.</summary>
    internal long ZeroPointBytes(int n, int k) => (long)RowBlocks(n) * ((ColumnBlocks(k) + 1L) / 2);

    internal int RowShift => rowShiftFrom128 + Log128;

    internal int ColumnShift => columnShiftFrom128 + Log128;
}
