using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What <see cref="SkinnySweep"/> loads, and from where.</summary>
internal static class SweepLoads
{
    // Words that the four lanes of a quad are apart.
    private const int WordStep = 4;

    /// <summary>A lane's part.</summary>
    public static SweepPlace Locate<TFormat, TInput, TTiles>(LinearArgs a)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        int lane = Group.IdxX & 31, warp = Group.IdxX >> 5;
        SweepPlace place = default;
        place.FirstRow = Bound(a.N, Grid.IdxX);
        place.Rows = IntrinsicMath.Min(Bound(a.N, Grid.IdxX + 1), a.N) - place.FirstRow;
        place.Tiles = (place.Rows + SkinnyGemm.Rows - 1) / SkinnyGemm.Rows;
        place.Pairs = Group.DimX >> 6;
        place.Side = warp >= place.Pairs ? 1 : 0;
        place.Pair = warp - (place.Side * place.Pairs);
        int turns = ((a.K / SkinnyGemm.ChunkCodes<TFormat>()) - place.Pair + place.Pairs - 1) / place.Pairs;
        int firsts = (((turns + 1) >> 1) * place.Border(0)) + ((turns >> 1) * place.Border(1));
        place.Units = place.Side == 0 ? firsts : (turns * place.Tiles) - firsts;
        int row = place.FirstRow + (lane >> 2), words = a.K >> TFormat.CodesPerWordShift;
        place.WordStep = 8 * words;
        ArrayView<uint> codes = a.Codes.Cast<uint>();
        long from = ((long)row * words) + ((lane & 3) * WordStep);
        place.Codes = codes.SubView(from, codes.Length - from);
        if (TFormat.HasGroupScales)
            place.Groups = a.ScaleTable.Groups.SubView(from >> 1, a.ScaleTable.Groups.Length - (from >> 1));
        place.Input0 = SkinnyLoads.LocateInputs<TFormat, TInput>(a, lane, 0);
        if (TTiles.Count == 2)
            place.Input1 = SkinnyLoads.LocateInputs<TFormat, TInput>(a, lane, SkinnyGemm.Columns);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        place.Sums = SharedWindow.Open(ref shared[0]);
        place.OwnSums = SweepSums.FirstOwn<TTiles>(place, place.Sums, lane);
        if (TFormat.HasRowScales)
            LocateScales<TFormat, TTiles>(a, shared, lane, ref place);
        return place;
    }

    private static void LocateScales<TFormat, TTiles>(LinearArgs a, ArrayView<byte> shared, int lane, ref SweepPlace place)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int columns = a.ScaleTable.Columns, row = lane >> 2, behind = SweepSums.SharedBytes(2 * place.Pairs, place.Tiles, TTiles.Count);
        place.ScaleStep = 8 * SweepAside.RowWords(columns);
        place.Scales = shared.SubView(behind, shared.Length - behind).Cast<uint>();
        place.Scale = row * SweepAside.RowWords(columns);
        if (!TFormat.HasZeroPoints)
            return;
        int bytes = (columns + 1) >> 1;
        place.ZeroStep = 8 * bytes;
        long from = (long)(place.FirstRow + row) * bytes;
        place.ZeroPoints = a.ScaleTable.ZeroPoints.SubView(from, a.ScaleTable.ZeroPoints.Length - from);
    }

    // The first row of a block: shares differ by no more than eight rows.
    private static int Bound(int n, int block)
    {
        int shares = (n + SkinnySweep.ShareRows - 1) / SkinnySweep.ShareRows, whole = shares / Grid.DimX, rest = shares - (whole * Grid.DimX);
        return ((block * whole) + IntrinsicMath.Min(block, rest)) * SkinnySweep.ShareRows;
    }

    /// <summary>A unit's weights, by its number in the window, with the multipliers or zero points of groups that their decoder needs.</summary>
    public static SkinnyChunk Chunk<TFormat>(SweepPlace place, SweepWindow window, int at)
        where TFormat : struct, IStreamedFormat
    {
        int word0 = (int)WarpOps.Shuffle(window.Word, at), word1 = word0 + place.WordStep, word2 = word1 + place.WordStep, word3 = word2 + place.WordStep;
        SkinnyChunk loaded = default;
        loaded.Row0 = Mem.LoadStream(ref place.Codes[word0]);
        loaded.Row1 = Mem.LoadStream(ref place.Codes[word1]);
        loaded.Row2 = Mem.LoadStream(ref place.Codes[word2]);
        loaded.Row3 = Mem.LoadStream(ref place.Codes[word3]);
        if (TFormat.HasGroupScales)
        {
            // A group's multiplier, a byte, for two words.
            loaded.Operand0 = Mem.LoadReadOnlyHalf(ref place.Groups[word0 >> 1]);
            loaded.Operand1 = Mem.LoadReadOnlyHalf(ref place.Groups[word1 >> 1]);
            loaded.Operand2 = Mem.LoadReadOnlyHalf(ref place.Groups[word2 >> 1]);
            loaded.Operand3 = Mem.LoadReadOnlyHalf(ref place.Groups[word3 >> 1]);
        }
        if (TFormat.HasZeroPoints)
        {
            uint zero = WarpOps.Shuffle(window.Zero, at);
            int first = (int)(zero >> 1), shift = 4 * (int)(zero & 1), step = place.ZeroStep;
            loaded.Operand0 = ((uint)place.ZeroPoints[first] >> shift) & 15;
            loaded.Operand1 = ((uint)place.ZeroPoints[first + step] >> shift) & 15;
            loaded.Operand2 = ((uint)place.ZeroPoints[first + (2 * step)] >> shift) & 15;
            loaded.Operand3 = ((uint)place.ZeroPoints[first + (3 * step)] >> shift) & 15;
        }
        return loaded;
    }

    /// <summary>What multiplies the sums of a unit's rows, from shared memory.</summary>
    public static void SharedScales(SweepPlace place, SweepWindow window, int at, ref SkinnyChunk w)
    {
        int scale = (int)WarpOps.Shuffle(window.Scale, at) + place.Scale, step = place.ScaleStep;
        w.Scale0 = place.Scales[scale];
        w.Scale1 = place.Scales[scale + step];
        w.Scale2 = place.Scales[scale + (2 * step)];
        w.Scale3 = place.Scales[scale + (3 * step)];
    }

    /// <summary>A chunk's inputs in one tile of x, as they are multiplied: codes decoded.</summary>
    public static SkinnyInputs Inputs<TFormat, TInput>(LinearArgs a, SkinnyInputPlace place, int chunk)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        SkinnyInputs loaded = SkinnyLoads.Inputs<TFormat, TInput>(a, place, chunk);
        uint operand = TInput.AreCodes ? TFormat.PrepareOperand(loaded.Operand) : 0;
        SkinnyInputs inputs = default;
        inputs.X0 = TInput.Decode<TFormat>(loaded.X0, 0, operand);
        inputs.X1 = TInput.Decode<TFormat>(TInput.AreCodes ? loaded.X0 : loaded.X1, 1, operand);
        inputs.X2 = TInput.Decode<TFormat>(TInput.AreCodes ? loaded.X0 : loaded.X2, 2, operand);
        inputs.X3 = TInput.Decode<TFormat>(TInput.AreCodes ? loaded.X0 : loaded.X3, 3, operand);
        return inputs;
    }
}
