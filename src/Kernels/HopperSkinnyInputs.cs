using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// x in shared memory, as the products of <see cref="HopperSkinnyGemm"/> take it: [chunk][first or second word of a lane][step][tile of 8 rows of x][lane] 16 bytes, which are eight
/// columns of one row of x in the order of the decoded weights. Rows beyond M and columns beyond K are zero.
/// </summary>
internal static class HopperSkinnyInputs
{
    /// <summary>A step of one tile of x.</summary>
    public const int TileBytes = 32 * 16;

    /// <summary>A step of all tiles of x.</summary>
    public static int StepBytes<TTiles>()
        where TTiles : struct, ITiles => TTiles.Count * TileBytes;

    /// <summary>Steps of eight codes of a 16-byte word.</summary>
    public const int StepsOfWord = 4;

    private const int WordCodes = 8 * StepsOfWord;

    /// <summary>Where a lane's inputs of a chunk begin.</summary>
    public static uint Offset<TTiles>(int chunk, int lane)
        where TTiles : struct, ITiles => (uint)((chunk * 2 * StepsOfWord * StepBytes<TTiles>()) + (lane * 16));

    /// <summary>Fills it; the whole block, word by word of weights, two at a time so that their loads wait together.</summary>
    public static void Arrange<TFormat, TInput, TTiles>(HopperSkinnyArgs a, HopperSkinnyWarp warp)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        int count = a.Chunks * 2 * TTiles.Count;
        for (int item = warp.Index; item < count; item += 2 * HopperSkinnyGemm.Warps)
        {
            SkinnyInputs first = Load<TFormat, TInput, TTiles>(a, warp, item), second = Load<TFormat, TInput, TTiles>(a, warp, IntrinsicMath.Min(item + HopperSkinnyGemm.Warps, count - 1));
            Store<TFormat, TInput, TTiles>(warp, item, first);
            if (item + HopperSkinnyGemm.Warps < count)
                Store<TFormat, TInput, TTiles>(warp, item + HopperSkinnyGemm.Warps, second);
        }
    }

    // What goes with a lane's word of weights: four times eight BF16, or codes and their groups' multipliers.
    private static SkinnyInputs Load<TFormat, TInput, TTiles>(HopperSkinnyArgs a, HopperSkinnyWarp warp, int item)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        SkinnyInputs inputs = default;
        int word = item / TTiles.Count, row = ((item - (word * TTiles.Count)) * SkinnyGemm.Columns) + (warp.Lane >> 2);
        int column = ((word >> 1) * HopperSkinnyGemm.ChunkCodes) + (HopperSkinnyProducts.Word<TFormat>(warp.Lane, word & 1) * WordCodes);
        if (row >= a.M || column >= a.K)
            return inputs;
        if (TInput.AreCodes)
        {
            inputs.X0 = Mem.LoadGlobalFrom(a.X + ((((long)row * a.K) + column) / 2));
            inputs.Operand = TFormat.PrepareOperand(Mem.LoadHalfFrom(a.InputGroups + ((((long)row * a.K) + column) >> 4)));
            return inputs;
        }
        long from = a.X + ((((long)row * a.K) + column) * sizeof(ushort));
        inputs.X0 = Mem.LoadGlobalFrom(from);
        inputs.X1 = Mem.LoadGlobalFrom(from + 16);
        inputs.X2 = Mem.LoadGlobalFrom(from + 32);
        inputs.X3 = Mem.LoadGlobalFrom(from + 48);
        return inputs;
    }

    private static void Store<TFormat, TInput, TTiles>(HopperSkinnyWarp warp, int item, SkinnyInputs inputs)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
        where TTiles : struct, ITiles
    {
        int word = item / TTiles.Count, tile = item - (word * TTiles.Count);
        uint to = warp.Inputs + (uint)((word * StepsOfWord * StepBytes<TTiles>()) + (tile * TileBytes) + (warp.Lane * 16)), step = (uint)StepBytes<TTiles>();
        SharedWindow.Store(to, TInput.Decode<TFormat>(inputs.X0, 0, inputs.Operand));
        SharedWindow.Store(to + step, TInput.Decode<TFormat>(TInput.AreCodes ? inputs.X0 : inputs.X1, 1, inputs.Operand));
        SharedWindow.Store(to + (2 * step), TInput.Decode<TFormat>(TInput.AreCodes ? inputs.X0 : inputs.X2, 2, inputs.Operand));
        SharedWindow.Store(to + (3 * step), TInput.Decode<TFormat>(TInput.AreCodes ? inputs.X0 : inputs.X3, 3, inputs.Operand));
    }
}
