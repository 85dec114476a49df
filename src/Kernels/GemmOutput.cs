using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// The end of a tile of <see cref="Gemm"/>: sums meet in shared memory and are stored in rows, 16 bytes a thread. The type of y is
/// looked up here, once a tile: as a type argument it would only double the kernels.
/// </summary>
internal static class GemmOutput
{
    /// <summary>The row of W that is row <paramref name="row"/> of a tile; the last one for those beyond the matrix.</summary>
    public static int WeightRow<TTile, TEpilogue>(int row, int firstColumn, int n)
        where TTile : struct, IGemmTile
        where TEpilogue : struct, IGemmEpilogue
    {
        if (!TEpilogue.IsGated)
            return IntrinsicMath.Min(firstColumn + row, n - 1);
        int width = n >> 1, within = row & ((TTile.N >> 1) - 1);
        return IntrinsicMath.Min(firstColumn + within, width - 1) + (row >= TTile.N >> 1 ? width : 0);
    }

    /// <summary>Columns of y that a tile has.</summary>
    public static int Columns<TTile, TEpilogue>()
        where TTile : struct, IGemmTile
        where TEpilogue : struct, IGemmEpilogue => TEpilogue.IsGated ? TTile.N >> 1 : TTile.N;

    /// <summary>Called once by every thread of the block, when nobody reads the stages any more.</summary>
    public static void Store<TFormat, TTile, TStages, TWarp, TEpilogue>(LinearArgs a, ArrayView<byte> shared, TWarp sums, GemmSource source)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TEpilogue : struct, IGemmEpilogue
    {
        int pitch = GemmSizes<TFormat, TTile, TStages, TWarp>.Pitch;
        ArrayView<uint> tile = shared.Cast<uint>();
        int warp = Group.IdxX >> 5, lane = Group.IdxX & 31, warpsShift = GemmSizes<TFormat, TTile, TStages, TWarp>.WarpsShift;
        int row = ((warp >> warpsShift) * TWarp.InputTiles * 8) + MmaFragment.CColumn(lane, 0);
        int column = ((warp & ((1 << warpsShift) - 1)) * TWarp.WeightTiles * 16) + MmaFragment.CRow(lane, 0);
        TWarp.Publish(sums, tile.SubView((row * pitch) + column, 1), 0, pitch * sizeof(float));
        // The tile is complete before rows are read.
        Block.Barrier();
        float matrixScale = TFormat.HasMatrixScale ? TFormat.MatrixScale(a.ScaleTable, source.Slab) : 1f, scale = matrixScale;
        int columns = Columns<TTile, TEpilogue>(), octetsShift = GemmSizes<TFormat, TTile, TStages, TWarp>.Log2(columns) - 3;
        int width = TEpilogue.IsGated ? a.N >> 1 : a.N;
        ArrayView<int> rows = shared.SubView(GemmSizes<TFormat, TTile, TStages, TWarp>.RowsStart, TTile.M * sizeof(int)).Cast<int>();
        for (int octet = Group.IdxX; octet < TTile.M << octetsShift; octet += Group.DimX)
        {
            int m = octet >> octetsShift, first = (octet & ((1 << octetsShift) - 1)) * 8;
            int n = source.FirstColumn + first, target = rows[m];
            if (target < 0 || n >= width)
                continue;
            if (TFormat.Operands == TiledOperands.Nvfp4)
                scale = matrixScale * a.InputScales.Blocks[target];
            F4 low = Load(tile, (m * pitch) + first, scale), high = Load(tile, (m * pitch) + first + 4, scale);
            if (TEpilogue.IsGated)
            {
                low = Gate(low, Load(tile, (m * pitch) + first + columns, scale));
                high = Gate(high, Load(tile, (m * pitch) + first + columns + 4, scale));
            }
            else
            {
                Add<TEpilogue>(a, target, n, ref low, ref high);
            }
            StoreOctet(a, target, n, width, low, high);
        }
    }

    /// <summary>Stores the eight columns from <paramref name="n"/> on of a row of y that has <paramref name="width"/>.</summary>
    public static void StoreOctet(LinearArgs a, int row, int n, int width, F4 low, F4 high)
    {
        long start = ((long)row * a.YStride) + n;
        if (a.IsFloat32 != 0)
            Store<Float32Output>(a, start, width - n, low, high);
        else
            Store<Bf16Output>(a, start, width - n, low, high);
    }

    /// <summary>Four numbers of y's tile times a scale.</summary>
    public static F4 Load(ArrayView<uint> tile, int index, float scale)
    {
        U4 bits = Mem.LoadShared(ref tile[index]);
        F4 v;
        v.X = Interop.IntAsFloat(bits.X) * scale;
        v.Y = Interop.IntAsFloat(bits.Y) * scale;
        v.Z = Interop.IntAsFloat(bits.Z) * scale;
        v.W = Interop.IntAsFloat(bits.W) * scale;
        return v;
    }

    private static F4 Gate(F4 gate, F4 value)
    {
        gate.X = GatedActivation.Silu(gate.X) * value.X;
        gate.Y = GatedActivation.Silu(gate.Y) * value.Y;
        gate.Z = GatedActivation.Silu(gate.Z) * value.Z;
        gate.W = GatedActivation.Silu(gate.W) * value.W;
        return gate;
    }

    // Eight columns at a time where all exist: loads do not depend on each other.
    private static void Add<TEpilogue>(LinearArgs a, int row, int n, ref F4 low, ref F4 high)
        where TEpilogue : struct, IGemmEpilogue
    {
        if (TEpilogue.AddsBias)
            AddFrom(a.Bias, n, a.N - n, ref low, ref high);
        if (TEpilogue.AddsResidual)
            AddFrom(a.Residual, ((long)row * a.N) + n, a.N - n, ref low, ref high);
    }

    private static void AddFrom(ArrayView<ushort> values, long start, int left, ref F4 low, ref F4 high)
    {
        low.X += Bf16.ToFloat(values[start]);
        low.Y += left > 1 ? Bf16.ToFloat(values[start + 1]) : 0f;
        low.Z += left > 2 ? Bf16.ToFloat(values[start + 2]) : 0f;
        low.W += left > 3 ? Bf16.ToFloat(values[start + 3]) : 0f;
        high.X += left > 4 ? Bf16.ToFloat(values[start + 4]) : 0f;
        high.Y += left > 5 ? Bf16.ToFloat(values[start + 5]) : 0f;
        high.Z += left > 6 ? Bf16.ToFloat(values[start + 6]) : 0f;
        high.W += left > 7 ? Bf16.ToFloat(values[start + 7]) : 0f;
    }

    private static void Store<TOutput>(LinearArgs a, long start, int count, F4 low, F4 high)
        where TOutput : struct, IOutput
    {
        ArrayView<byte> y = a.Y;
        if (a.WideStores != 0 && count >= 8)
        {
            TOutput.StoreOctet(y, start, low, high);
            return;
        }
        TOutput.Store(y, start, low.X);
        if (count > 1)
            TOutput.Store(y, start + 1, low.Y);
        if (count > 2)
            TOutput.Store(y, start + 2, low.Z);
        if (count > 3)
            TOutput.Store(y, start + 3, low.W);
        if (count > 4)
            TOutput.Store(y, start + 4, high.X);
        if (count > 5)
            TOutput.Store(y, start + 5, high.Y);
        if (count > 6)
            TOutput.Store(y, start + 6, high.Z);
        if (count > 7)
            TOutput.Store(y, start + 7, high.W);
    }
}
