using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// The loop of <see cref="Gemm"/> over BF16 weights. Operands of a step are loaded into registers while the step before is multiplied,
/// across the end of a turn too: its barrier comes one step early, so that no multiplication waits for a barrier and then for loads.
/// </summary>
internal static class GemmValueTurns
{
    /// <summary>The products of all turns; the first stages are on their way.</summary>
    public static void Multiply<TFormat, TTile, TStages, TWarp, TRows>(LinearArgs a, GemmCopy copy, ArrayView<byte> shared, int slab, GemmPlace place, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TStages : struct, IGemmStages
        where TWarp : struct, IGemmWarp<TWarp>
        where TRows : struct, IRowMap
    {
        CpAsync.Wait(TStages.Count - 2);
        // Everyone's copies of the first turn are complete.
        Block.Barrier();
        GemmOperands even = Load<TTile, TWarp>(shared, place, 0, 0);
        int full = 0, empty = TStages.Count - 1;
        for (int k = 0; k < a.K; k += TTile.K)
        {
            int start = full * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes, next = k + ((TStages.Count - 1) * TTile.K);
            GemmOperands odd = Load<TTile, TWarp>(shared, place, start, 1);
            GemmCopies.Inputs<TFormat, TTile, TStages, TWarp, TRows>(a, copy, shared, empty, next);
            TWarp.Step<TFormat>(ref sums, even.X, even.W);
            even = Load<TTile, TWarp>(shared, place, start, 2);
            GemmCopies.Weights<TFormat, TTile, TStages, TWarp>(a, copy, shared, empty, slab, next);
            CpAsync.Commit();
            TWarp.Step<TFormat>(ref sums, odd.X, odd.W);
            odd = Load<TTile, TWarp>(shared, place, start, 3);
            TWarp.Step<TFormat>(ref sums, even.X, even.W);
            if (TTile.K == 128)
                SecondHalf<TFormat, TTile, TWarp>(shared, place, start, ref odd, ref sums);
            empty = full;
            full = full + 1 == TStages.Count ? 0 : full + 1;
            CpAsync.Wait(TStages.Count - 2);
            // Everyone's copies of the next turn are complete, and everyone has loaded what the stage of this one holds.
            Block.Barrier();
            even = Load<TTile, TWarp>(shared, place, full * GemmSizes<TFormat, TTile, TStages, TWarp>.StageBytes, 0);
            TWarp.Step<TFormat>(ref sums, odd.X, odd.W);
        }
    }

    // Of a turn of 128 columns: leaves the operands of the last step.
    private static void SecondHalf<TFormat, TTile, TWarp>(ArrayView<byte> shared, GemmPlace place, int start, ref GemmOperands odd, ref TWarp sums)
        where TFormat : struct, ITiledFormat
        where TTile : struct, IGemmTile
        where TWarp : struct, IGemmWarp<TWarp>
    {
        GemmOperands even = Load<TTile, TWarp>(shared, place, start, 4);
        TWarp.Step<TFormat>(ref sums, odd.X, odd.W);
        odd = Load<TTile, TWarp>(shared, place, start, 5);
        TWarp.Step<TFormat>(ref sums, even.X, even.W);
        even = Load<TTile, TWarp>(shared, place, start, 6);
        TWarp.Step<TFormat>(ref sums, odd.X, odd.W);
        odd = Load<TTile, TWarp>(shared, place, start, 7);
        TWarp.Step<TFormat>(ref sums, even.X, even.W);
    }

    // Steps from the fourth on are those of the second 64 columns.
    private static GemmOperands Load<TTile, TWarp>(ArrayView<byte> shared, GemmPlace place, int start, int step)
        where TTile : struct, IGemmTile
        where TWarp : struct, IGemmWarp<TWarp>
    {
        int half = step >> 2;
        return GemmProducts.Operands<TWarp>(shared, place, start + (half * TTile.M * GemmCopies.RowBytes), start + (half * TTile.N * GemmCopies.RowBytes), step & 3);
    }
}
