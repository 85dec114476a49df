using GpuKit.Ilgpu.Kernels.Formats;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Where a lane reads what <see cref="SkinnyAside"/> has brought: multipliers and zero points of its first row, and words from there to the next of its rows.</summary>
internal struct SkinnyAsidePlace
{
    public ArrayView<uint> Scales, ZeroPoints;
    public int ScaleStep, ZeroStep;
}

/// <summary>
/// Multipliers and zero points of a block's rows of W in shared memory, behind the sums of <see cref="SkinnyGemm"/> or <see cref="SkinnyArranging"/>. There a row's lie together and are read once, line by line; a lane's requests to L1 for a chunk's,
/// of eight rows each, are as much work as those for codes, and wait in registers as long.
/// </summary>
internal static class SkinnyAside
{
    /// <summary>Whether a format's are there: those of a row's columns, where sums are not of integers.</summary>
    public static bool Serves<TFormat, TInput>()
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs => TFormat.HasGroupScales || (TFormat.HasRowScales && !TInput.AreIntegers);

    /// <summary>Shared memory of a block's rows, with so many bytes of multipliers and of zero points a row.</summary>
    public static long SharedBytes(long scaleBytes, long zeroBytes) => SkinnyGemm.Rows * sizeof(uint) * (RowWords(scaleBytes) + (zeroBytes == 0 ? 0 : RowWords(zeroBytes)));

    // Eight rows' words, or pairs of words, lie in different banks.
    private static long RowWords(long bytes) => (((bytes + 7) >> 2) & ~3L) + 2;

    private static int RowWords(int bytes) => (int)RowWords((long)bytes);

    /// <summary>Where a lane will find its rows'.</summary>
    public static SkinnyAsidePlace Locate<TFormat, TTiles>(LinearArgs a, ArrayView<byte> shared, int lane)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int words = RowWords(ScaleBytes<TFormat>(a)), zeroWords = RowWords(ZeroBytes(a)), row = lane >> 2;
        SkinnyAsidePlace place = default;
        // Two lanes of a row share a word of group multipliers.
        place.Scales = Words(shared, First<TTiles>() + (((row * words) + (TFormat.HasGroupScales ? (lane & 3) >> 1 : 0)) * sizeof(uint)));
        place.ScaleStep = 8 * words;
        if (TFormat.HasZeroPoints)
        {
            place.ZeroPoints = Words(shared, First<TTiles>() + (((SkinnyGemm.Rows * words) + (row * zeroWords)) * sizeof(uint)));
            place.ZeroStep = 8 * zeroWords;
        }
        return place;
    }

    /// <summary>Starts to bring them; the whole block.</summary>
    public static void Request<TFormat, TInput, TTiles>(LinearArgs a, ArrayView<byte> shared)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        AsideRows rows = default;
        rows.First = (int)SkinnyGemm.FirstRow<TInput>(a);
        // What lies in shared memory for rows beyond the matrix multiplies sums that are not stored.
        rows.Count = IntrinsicMath.Min(SkinnyGemm.Rows, a.N - rows.First);
        rows.Shift = TFormat.HasGroupScales ? 0 : a.ScaleTable.RowShift;
        rows.Bytes = ScaleBytes<TFormat>(a);
        rows.To = First<TTiles>() / sizeof(uint);
        rows.ToStep = RowWords(rows.Bytes);
        AsideCopies.Request(shared.Cast<uint>(), TFormat.HasGroupScales ? a.ScaleTable.Groups : a.Scales.Cast<byte>(), rows);
        if (TFormat.HasZeroPoints)
        {
            rows.To += SkinnyGemm.Rows * rows.ToStep;
            rows.Bytes = ZeroBytes(a);
            rows.ToStep = RowWords(rows.Bytes);
            AsideCopies.Request(shared.Cast<uint>(), a.ScaleTable.ZeroPoints, rows);
        }
    }

    // Behind the sums.
    private static int First<TTiles>()
        where TTiles : struct, ITiles => SkinnyGemm.SharedBytes(Group.DimX >> 5, TTiles.Count);

    // Of a row.
    private static int ScaleBytes<TFormat>(LinearArgs a)
        where TFormat : struct, IStreamedFormat => TFormat.HasGroupScales ? a.K >> 4 : a.ScaleTable.Columns * sizeof(float);

    private static int ZeroBytes(LinearArgs a) => (a.ScaleTable.Columns + 1) >> 1;

    private static ArrayView<uint> Words(ArrayView<byte> shared, int from) => shared.SubView(from, shared.Length - from).Cast<uint>();

    /// <summary>A chunk's, of a lane's four rows.</summary>
    public static void Load<TFormat>(LinearArgs a, SkinnyAsidePlace place, int chunk, ref SkinnyChunk w)
        where TFormat : struct, IStreamedFormat
    {
        if (TFormat.HasGroupScales)
        {
            // Eight bytes a chunk, of which a lane has two.
            int shift = 16 * (Group.IdxX & 1), word = 2 * chunk;
            w.Operand0 = place.Scales[word] >> shift;
            w.Operand1 = place.Scales[word + place.ScaleStep] >> shift;
            w.Operand2 = place.Scales[word + (2 * place.ScaleStep)] >> shift;
            w.Operand3 = place.Scales[word + (3 * place.ScaleStep)] >> shift;
            return;
        }
        int block = (chunk * SkinnyGemm.ChunkCodes<TFormat>()) >> a.ColumnShift;
        w.Scale0 = place.Scales[block];
        w.Scale1 = place.Scales[block + place.ScaleStep];
        w.Scale2 = place.Scales[block + (2 * place.ScaleStep)];
        w.Scale3 = place.Scales[block + (3 * place.ScaleStep)];
        if (TFormat.HasZeroPoints)
        {
            int word = block >> 3, shift = 4 * (block & 7);
            w.Operand0 = (place.ZeroPoints[word] >> shift) & 15;
            w.Operand1 = (place.ZeroPoints[word + place.ZeroStep] >> shift) & 15;
            w.Operand2 = (place.ZeroPoints[word + (2 * place.ZeroStep)] >> shift) & 15;
            w.Operand3 = (place.ZeroPoints[word + (3 * place.ZeroStep)] >> shift) & 15;
        }
    }
}
