namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// The one place that says which element of an m16n8 product each register of each lane holds (A row-major 16×K,
/// B column-major K×8, C and D 16×8). A register holds consecutive elements of A or B, the lowest column or k in its lowest bits: two
/// of 16 bits (K = 16), which is the picture, four of 8 (K = 32), the same with every number of columns doubled, or eight of 4 (K = 64).
/// </summary>
/// <remarks>
/// With g = lane / 4 (0..7) and t = lane % 4 (0..3):
/// <code>
/// A       k = 2t, 2t+1      k = 2t+8, 2t+9            C           n = 2t     n = 2t+1
/// row g   ┌──────────────┬──────────────┐             row g      ┌─────────┬─────────┐
///         │  register 0  │  register 2  │                        │   c0    │   c1    │
/// row g+8 ├──────────────┼──────────────┤             row g+8    ├─────────┼─────────┤
///         │  register 1  │  register 3  │                        │   c2    │   c3    │
///         └──────────────┴──────────────┘                        └─────────┴─────────┘
/// B       register 0: k = 2t, 2t+1     register 1: k = 2t+8, 2t+9     both column n = g
/// </code>
/// Registers run down the rows of A first: exchanging 1 and 2 exchanges the upper right with the lower left quadrant,
/// and no test whose A is symmetric under that exchange notices.
/// </remarks>
internal static class MmaFragment
{
    /// <summary>Row of A (0..15) in <paramref name="register"/> 0..3.</summary>
    public static int ARow(int lane, int register) => (lane >> 2) + 8 * (register & 1);

    /// <summary>Column (k) of A in the lowest bits of <paramref name="register"/> 0..3, which holds this many <paramref name="elements"/>.</summary>
    public static int AColumn(int lane, int register, int elements = 2) => elements * ((lane & 3) + 4 * (register >> 1));

    /// <summary>Row (k) of B in the lowest bits of <paramref name="register"/> 0..1, which holds this many <paramref name="elements"/>.</summary>
    public static int BK(int lane, int register, int elements = 2) => elements * ((lane & 3) + 4 * register);

    /// <summary>Column (n) of B, 0..7, in both registers.</summary>
    public static int BColumn(int lane) => lane >> 2;

    /// <summary>Row of A (0..15) whose multipliers a lane holds; of each four lanes the first two are asked.</summary>
    public static int AScaleRow(int lane) => (lane >> 2) + 8 * (lane & 1);

    /// <summary>Column of B (0..7) whose multipliers a lane holds; of each four lanes the first is asked.</summary>
    public static int BScaleColumn(int lane) => lane >> 2;

    /// <summary>Row of C and D (0..15) in element <paramref name="i"/> 0..3.</summary>
    public static int CRow(int lane, int i) => (lane >> 2) + 8 * (i >> 1);

    /// <summary>Column (n) of C and D, 0..7, in element <paramref name="i"/> 0..3.</summary>
    public static int CColumn(int lane, int i) => 2 * (lane & 3) + (i & 1);
}
