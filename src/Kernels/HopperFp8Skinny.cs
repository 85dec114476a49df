using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// <see cref="SkinnyGemm"/> of FP8 with groups of 32 columns on both sides for large matrices on Hopper (sm_90a): the copy engine brings codes of W and x, a ring a warp.
/// </summary>
/// <remarks>
/// A block has 32 rows of W. Its warps take turns along K, four groups at a time (a chunk), and add up through shared memory in warp order. What <see cref="SkinnyGemm"/> loads, 16 bytes a lane, puts two groups into every product;
/// from shared memory a lane takes 8 bytes of one group, so that a product has 16 columns of one group and eight rows of x. The number of warps follows from N and K, and a column of a product does not see the others, so a row of x
/// has the same bits for every M of 1..16.
/// </remarks>
internal static class HopperFp8Skinny
{
    /// <summary>Rows of W of a block.</summary>
    public const int Rows = SkinnyGemm.Rows;

    /// <summary>Columns that a warp multiplies at once: bytes of a row.</summary>
    public const int ChunkColumns = 128;

    /// <summary>Columns that share multipliers.</summary>
    public const int GroupColumns = 32;

    /// <summary>Bytes of W in a stage; x lies behind them.</summary>
    public const int WeightBytes = Rows * ChunkColumns;

    // More would be slower: docs/kernels/gemv.md.
    private const int Stages = 2, BarrierBytes = 8;

    // Between columns of x in a warp's sums: what its lanes store at once lies in 16 banks, two lanes each, once a block.
    private const int ColumnStep = Rows + 4, TileSums = SkinnyGemm.Columns * ColumnStep;

    // Of a multiprocessor; each block takes some more than it asks for.
    private const int MemoryBytes = 228 * 1024, ReservedBytes = 1024;

    /// <summary>
    /// Dynamic shared memory of a block; its sums take the place of stages that have been read. More than it needs where a multiprocessor would have room for more than <see cref="SkinnyGemm.MostWarps"/> warps: with one block more, of the
    /// next launch, 4096 × 14336 took a sixth longer (docs/kernels/gemv.md).
    /// </summary>
    public static int SharedBytes(int warps, int tiles) => Math.Max(warps * Stages * (StageBytes(tiles) + BarrierBytes), MostBytes((SkinnyGemm.MostWarps / warps) + 1) + 16);

    // What each of so many blocks can have.
    private static int MostBytes(int blocks) => (MemoryBytes / blocks) - ReservedBytes;

    // A stage: the weights, then x.
    private static int StageBytes(int tiles) => WeightBytes + (tiles * SkinnyGemm.Columns * ChunkColumns);

    public static void Run<TOutput, TTiles>(HopperFp8SkinnyArgs a)
        where TOutput : struct, ISkinnyOutput
        where TTiles : struct, ITiles
    {
        uint window = SharedWindow.Open(ref SharedMemory.GetDynamic<byte>()[0]);
        // A number that the compiler knows to be the same in all lanes needs no register of each.
        int warp = (int)WarpOps.Shuffle((uint)Group.IdxX >> 5, 0), warps = Group.DimX >> 5, lane = Group.IdxX & 31, chunks = a.K / ChunkColumns;
        uint ring = window + (uint)(warp * Stages * StageBytes(TTiles.Count)), barriers = window + (uint)((warps * Stages * StageBytes(TTiles.Count)) + (warp * Stages * BarrierBytes));
        // A warp without chunks requests nothing.
        int count = IntrinsicMath.Min(Stages, (chunks - warp + warps - 1) / warps), early = IntrinsicMath.Min(count, a.EarlyChunks);
        if (lane == 0)
        {
            for (int i = 0; i < Stages; i++)
                Mbarrier.Initialize(barriers + (uint)(i * BarrierBytes), 1);
            Mbarrier.FenceInitialized();
            // Weights are no output of the launch before.
            for (int i = 0; i < early; i++)
                RequestWeights<TTiles>(a, ring, barriers, i, warp + (i * warps));
        }
        GridDependency.Release();
        GridDependency.Wait();
        if (lane == 0)
        {
            // Copies come in about the order in which they are asked for.
            for (int i = 0; i < early; i++)
                RequestInputs<TTiles>(a, ring, barriers, i, warp + (i * warps));
            for (int i = early; i < count; i++)
            {
                RequestWeights<TTiles>(a, ring, barriers, i, warp + (i * warps));
                RequestInputs<TTiles>(a, ring, barriers, i, warp + (i * warps));
            }
        }
        // The barriers exist before any lane waits.
        WarpOps.Barrier();
        SkinnyAccumulators sums = default;
        if (warp < chunks)
            Multiply<TTiles>(a, ring, barriers, (warp, chunks, warps), ref sums);
        // All stages have been read: sums take their place.
        Block.Barrier();
        ArrayView<float> partials = SharedMemory.GetDynamic<float>();
        Publish<TTiles>(partials, warp, lane, sums);
        // All warps' sums are there before they are added.
        Block.Barrier();
        Add<TOutput, TTiles>(a, partials, (warp, warps), lane);
    }

    private static void Multiply<TTiles>(HopperFp8SkinnyArgs a, uint ring, uint barriers, (int First, int End, int Step) chunks, ref SkinnyAccumulators sums)
        where TTiles : struct, ITiles
    {
        HopperRing at = default;
        HopperFp8SkinnyPlace place = HopperFp8SkinnyProducts.Locate(a);
        HopperFp8SkinnyScales scales = HopperFp8SkinnyProducts.LoadScales<TTiles>(place, chunks.First).Multiplied<TTiles>();
        for (int c = chunks.First; c < chunks.End; c += chunks.Step)
        {
            // After the last chunk this one's again. With two tiles registers are free when half of the multipliers have been used.
            int following = c + chunks.Step < chunks.End ? c + chunks.Step : c;
            HopperFp8SkinnyScales next = default;
            if (TTiles.Count == 1)
                next = HopperFp8SkinnyProducts.LoadScales<TTiles>(place, following);
            Mbarrier.Wait(barriers + (uint)(at.Stage * BarrierBytes), at.Parity);
            uint stage = ring + (uint)(at.Stage * StageBytes(TTiles.Count));
            HopperFp8SkinnyProducts.MultiplyFirst<TTiles>(stage, place, scales, ref sums);
            if (TTiles.Count == 2)
                next = HopperFp8SkinnyProducts.LoadScales<TTiles>(place, following);
            HopperFp8SkinnyProducts.MultiplySecond<TTiles>(stage, place, scales, ref sums);
            // All lanes have multiplied what they loaded: the stage is filled again.
            WarpOps.Barrier();
            int wanted = c + (Stages * chunks.Step);
            if ((Group.IdxX & 31) == 0 && wanted < chunks.End)
            {
                RequestWeights<TTiles>(a, ring, barriers, at.Stage, wanted);
                RequestInputs<TTiles>(a, ring, barriers, at.Stage, wanted);
            }
            at.Advance(Stages);
            scales = next.Multiplied<TTiles>();
        }
    }

    private static void RequestWeights<TTiles>(HopperFp8SkinnyArgs a, uint ring, uint barriers, int stage, int chunk)
        where TTiles : struct, ITiles
    {
        uint arrived = barriers + (uint)(stage * BarrierBytes);
        Mbarrier.ArriveExpecting(arrived, StageBytes(TTiles.Count));
        Tma.Load(a.Weight, HopperFp8SkinnyArgs.WeightMap, ring + (uint)(stage * StageBytes(TTiles.Count)), chunk * ChunkColumns, Grid.IdxX * Rows, arrived);
    }

    // Rows that x does not have are zeros.
    private static void RequestInputs<TTiles>(HopperFp8SkinnyArgs a, uint ring, uint barriers, int stage, int chunk)
        where TTiles : struct, ITiles =>
        Tma.Load(a.Input, HopperFp8SkinnyArgs.InputMap, ring + (uint)((stage * StageBytes(TTiles.Count)) + WeightBytes), chunk * ChunkColumns, 0, barriers + (uint)(stage * BarrierBytes));

    private static void Publish<TTiles>(ArrayView<float> partials, int warp, int lane, SkinnyAccumulators sums)
        where TTiles : struct, ITiles
    {
        int first = (warp * TTiles.Count * TileSums) + (HopperFp8SkinnyProducts.InputRow(2 * (lane & 3)) * ColumnStep) + HopperFp8SkinnyProducts.Row(lane);
        Publish(partials, first, sums.Upper0);
        Publish(partials, first + (Rows / 2), sums.Lower0);
        if (TTiles.Count == 2)
        {
            Publish(partials, first + TileSums, sums.Upper1);
            Publish(partials, first + TileSums + (Rows / 2), sums.Lower1);
        }
    }

    // Of two neighbouring rows of W and two of x.
    private static void Publish(ArrayView<float> partials, int first, F4 sums)
    {
        const int Next = HopperFp8SkinnyProducts.InputRowStep * ColumnStep;
        partials[first] = sums.X;
        partials[first + 1] = sums.Z;
        partials[first + Next] = sums.Y;
        partials[first + Next + 1] = sums.W;
    }

    private static void Add<TOutput, TTiles>(HopperFp8SkinnyArgs a, ArrayView<float> partials, (int Index, int Count) warp, int lane)
        where TOutput : struct, ISkinnyOutput
        where TTiles : struct, ITiles
    {
        int n = (Grid.IdxX * Rows) + lane;
        if (n >= a.N)
            return;
        for (int m = warp.Index; m < a.M; m += warp.Count)
        {
            int first = ((m / SkinnyGemm.Columns) * TileSums) + ((m % SkinnyGemm.Columns) * ColumnStep) + lane;
            float sum = 0;
            for (int i = 0; i < warp.Count; i++)
                sum += partials[(i * TTiles.Count * TileSums) + first];
            TOutput.Store(a.Output, (m * a.OutputStride) + n, sum);
        }
    }
}
