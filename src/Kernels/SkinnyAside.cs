using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>Where a lane reads what <see cref="SkinnyAside"/> has brought: multipliers and zero points of its first row, and words from there to the next of its rows.</summary>
internal struct SkinnyAsidePlace
{
    public ArrayView<uint> Scales, ZeroPoints;
    public int ScaleStep, ZeroStep;
}

/// <summary>
/// Multipliers and zero points of a block's rows of W in shared memory, behind the sums of <see cref="SkinnyGemm"/>. There a row's lie together and are read once, line by line; a lane's requests to L1 for a chunk's,
/// of eight rows each, are as much work as those for codes, and wait in registers as long.
/// </summary>
internal static class SkinnyAside
{
    /// <summary>Whether a format's are there: those of groups of a row's columns.</summary>
    public static bool Serves<TFormat, TInput>()
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs => TFormat.HasGroupScales || (TFormat.HasRowScales && !TInput.AreIntegers);

    /// <summary>Shared memory of a block's rows, with so many bytes of multipliers and of zero points a row.</summary>
    public static long SharedBytes(long scaleBytes, long zeroBytes) => SkinnyGemm.Rows * sizeof(uint) * (RowWords(scaleBytes) + (zeroBytes == 0 ? 0 : RowWords(zeroBytes)));

    // Eight rows' words, or pairs of words, lie in different banks.
    private static long RowWords(long bytes) => (((bytes + 7) >> 2) & ~3L) + 2;

    private static int RowWords(int bytes) => (int)RowWords((long)bytes);

    /// <summary>Starts to bring them; the whole block.</summary>
    public static SkinnyAsidePlace Request<TFormat, TInput, TTiles>(LinearArgs a)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        int lane = Group.IdxX & 31, warps = Group.DimX >> 5;
        int scaleBytes = TFormat.HasGroupScales ? a.K >> 4 : a.ScaleTable.Columns * sizeof(float), zeroBytes = (a.ScaleTable.Columns + 1) >> 1;
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        int scales = SkinnyGemm.SharedBytes(warps, TTiles.Count), zeros = scales + (SkinnyGemm.Rows * sizeof(uint) * RowWords(scaleBytes));
        for (int row = Group.IdxX >> 5; row < SkinnyGemm.Rows; row += warps)
        {
            long n = IntrinsicMath.Min(SkinnyGemm.FirstRow<TInput>(a) + row, a.N - 1);
            if (TFormat.HasGroupScales)
                CopyRow(shared, scales + (row * sizeof(uint) * RowWords(scaleBytes)), a.ScaleTable.Groups, n * scaleBytes, scaleBytes, lane);
            else
                CopyRow(shared, scales + (row * sizeof(uint) * RowWords(scaleBytes)), a.Scales.Cast<byte>(), (n >> a.ScaleTable.RowShift) * scaleBytes, scaleBytes, lane);
            if (TFormat.HasZeroPoints)
                CopyRow(shared, zeros + (row * sizeof(uint) * RowWords(zeroBytes)), a.ScaleTable.ZeroPoints, (n >> a.ScaleTable.RowShift) * zeroBytes, zeroBytes, lane);
        }
        SkinnyAsidePlace place = default;
        // Two lanes of a row share a word of group multipliers.
        place.Scales = Row(shared, scales, lane >> 2, RowWords(scaleBytes), TFormat.HasGroupScales ? (lane & 3) >> 1 : 0);
        place.ScaleStep = 8 * RowWords(scaleBytes);
        if (TFormat.HasZeroPoints)
        {
            place.ZeroPoints = Row(shared, zeros, lane >> 2, RowWords(zeroBytes), 0);
            place.ZeroStep = 8 * RowWords(zeroBytes);
        }
        return place;
    }

    private static ArrayView<uint> Row(ArrayView<byte> shared, int first, int row, int rowWords, int word)
    {
        int from = first + (((row * rowWords) + word) * sizeof(uint));
        return shared.SubView(from, shared.Length - from).Cast<uint>();
    }

    // A warp, whole words where rows begin with one.
    private static void CopyRow(ArrayView<byte> shared, int to, ArrayView<byte> stored, long from, int bytes, int lane)
    {
        if ((bytes & 3) == 0)
        {
            for (int at = lane * sizeof(uint); at < bytes; at += 32 * sizeof(uint))
                CpAsync.Copy4ZeroFill(ref shared.Cast<uint>()[(to + at) >> 2], ref stored.Cast<uint>()[(from + at) >> 2], 4);
        }
        else
        {
            for (int at = lane; at < bytes; at += 32)
                shared[to + at] = stored[from + at];
        }
    }

    /// <summary>Waits until they are there; the whole block.</summary>
    public static void Await()
    {
        CpAsync.WaitAll();
        // All warps' copies have landed.
        Block.Barrier();
    }

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
