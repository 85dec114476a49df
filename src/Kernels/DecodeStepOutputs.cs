using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What becomes of the sums of a product of <see cref="DecodeStep"/>.</summary>
internal static class DecodeStepOutputs
{
    /// <summary>Adds up the warps' sums of the block's rows and stores them, or adds them to the residual stream; the output product feeds the router. A meeting must follow.</summary>
    public static void Store(DecodeStepArgs a, DecodeStepShared shared, int layer, int product, DecodeStepAhead ahead, float factor)
    {
        DecodeStepShare share = shared.Shares.OfProduct(product);
        int first = share.First * DecodeStepRing.GroupRows, threads = 32 * DecodeStep.Multipliers;
        bool isGateUp = product == DecodeStep.GateUp;
        for (int r = Group.IdxX; r < share.Count * DecodeStepRing.GroupRows; r += threads)
        {
            // A unit of gate and up: its eight gate rows, then its eight up rows.
            int row = isGateUp ? (2 * (r & ~7)) + (r & 7) : r, n = first + r;
            float value = Collect(shared.Partials, row, a.MostRows) * factor;
            if (isGateUp)
                value = value / (1f + XMath.Exp(-value)) * (Collect(shared.Partials, row + DecodeStepRing.GroupRows, a.MostRows) * factor);
            if (product == DecodeStep.QueryKeyValue)
                a.QueryKeyValue[n] = Bf16.FromFloat(value);
            else if (isGateUp)
                a.Activated[n] = Bf16.FromFloat(value);
            else
                AddToResidual(a, shared, (r, n, product), ahead, value);
        }
        if (product != DecodeStep.Output)
            return;
        SomeWarps.Meet(DecodeStep.MeetingPoint, threads); // the block's columns are there before the router multiplies them
        DecodeStepRouting.Add(a, shared, layer, share, ahead.Weights);
    }

    private static void AddToResidual(DecodeStepArgs a, DecodeStepShared shared, (int Row, int N, int Product) place, DecodeStepAhead ahead, float value)
    {
        if (place.Row != Group.IdxX)
        {
            ahead.Residual = a.Residual[place.N];
            ahead.Gain = DecodeStepInputs.GainOf(ahead.Address, place.N);
        }
        value += ahead.Residual;
        a.Residual[place.N] = value;
        if (place.Product == DecodeStep.Output)
            shared.Columns[place.Row] = value * ahead.Gain;
    }

    // A row's sum over the warps, in a fixed order: eight are read at once.
    private static float Collect(ArrayView<float> partials, int row, int rows)
    {
        float sum = 0;
        for (int warp = 0; warp < DecodeStep.Multipliers; warp++)
            sum += partials[(warp * rows) + row];
        return sum;
    }
}
