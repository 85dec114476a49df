using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// <see cref="SkinnyGemm"/> for codes of four bits in large matrices: at most 16 rows of x, a chunk of which a warp loads once for half of its block's rows of W.
/// </summary>
/// <remarks>
/// A block a multiprocessor, with an equal share of the rows of W. Pairs of its warps take turns along K, 64 bytes of each row at a time (a chunk), and sweep over the share with a chunk's inputs in registers, 32 rows (a tile)
/// at a time; <see cref="SkinnyGemm"/>'s warps load them anew for each tile, which at 16 rows of x is more work for L1 than the weights. A warp of a pair has the share's first tiles, the other its last ones; of an odd number the middle one
/// is now the one's, now the other's, so that all warps have the same to do and no scheduler waits for another. A warp's sums of its tiles lie in shared memory, 16 bytes a lane, which nobody else touches until the end: then
/// they are added in warp order. The order of sums depends on N, K, the format and the device, so a row of x has the same bits for every M of 1..16.
/// </remarks>
internal static class SkinnySweep
{
    public const int MostWarps = 16;

    /// <summary>Shares of blocks begin at multiples of so many rows.</summary>
    public const int ShareRows = 8;

    public static void Run<TFormat, TInput, TOutput, TTiles>(LinearArgs a)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TOutput : struct, IOutput
        where TTiles : struct, ITiles
    {
        SweepPlace place = SweepLoads.Locate<TFormat, TInput, TTiles>(a);
        int first = 0, at = 0;
        SweepWindow window = SweepWindow.Of<TFormat, TTiles>(a, place, first);
        SkinnyChunk even = SweepLoads.Chunk<TFormat>(place, window, 0), odd = SweepLoads.Chunk<TFormat>(place, window, 1);
        if (TFormat.HasRowScales)
            SweepAside.Request(a, place);
        SweepSums.Clear<TTiles>(place);
        GridDependency.Release();
        GridDependency.Wait();
        if (TFormat.HasRowScales)
            AsideCopies.Await();
        SkinnyInputTiles x = default;
        // Two units are in registers, each refilled when it is multiplied. Behind the end the last one is read again.
        for (int left = place.Units; left > 1; left -= 2)
        {
            if (at == SweepWindow.Ahead)
            {
                first += at;
                at = 0;
                window = SweepWindow.Of<TFormat, TTiles>(a, place, first);
            }
            Multiply<TFormat, TInput, TTiles>(a, place, window, at, even, ref x);
            even = SweepLoads.Chunk<TFormat>(place, window, at + 2);
            Multiply<TFormat, TInput, TTiles>(a, place, window, at + 1, odd, ref x);
            odd = SweepLoads.Chunk<TFormat>(place, window, at + 3);
            at += 2;
        }
        if ((place.Units & 1) != 0)
            Multiply<TFormat, TInput, TTiles>(a, place, window, at, even, ref x);
        // All warps' sums are there before they are added.
        Block.Barrier();
        SweepSums.Add<TFormat, TInput, TOutput, TTiles>(a, place);
    }

    private static void Multiply<TFormat, TInput, TTiles>(LinearArgs a, SweepPlace place, SweepWindow window, int at, SkinnyChunk w, ref SkinnyInputTiles x)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        uint own = WarpOps.Shuffle(window.Sums, at);
        if ((own & SweepWindow.Begins) != 0)
        {
            int chunk = (int)WarpOps.Shuffle(window.Chunk, at);
            x.Tile0 = SweepLoads.Inputs<TFormat, TInput>(a, place.Input0, chunk);
            if (TTiles.Count == 2)
                x.Tile1 = SweepLoads.Inputs<TFormat, TInput>(a, place.Input1, chunk);
        }
        own = place.OwnSums + (own & ~SweepWindow.Begins);
        if (TFormat.HasRowScales)
            SweepLoads.SharedScales(place, window, at, ref w);
        SkinnyAccumulators sums = SweepSums.Load<TTiles>(own);
        SkinnyProducts.Multiply<TFormat, StreamedArrangedInputs, TTiles>(w, x, ref sums);
        SweepSums.Store<TTiles>(own, sums);
    }
}
