using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What <see cref="HopperSweep"/> loads, and from where.</summary>
internal static class HopperSweepLoads
{
    private const int RowStepBytes = HopperSweepAside.RowStep * SkinnyGemm.ChunkBytes;

    /// <summary>A lane's codes of a stage, and what multiplies them or their sums.</summary>
    public static SkinnyChunk Stage<TFormat, TTiles>(HopperSkinnyArgs a, HopperSweepPlace place, int chunk, int tile, int stage)
        where TFormat : struct, IStreamedFormat
        where TTiles : struct, ITiles
    {
        int lane = Group.IdxX & 31;
        SkinnyChunk w = default;
        // Eight lanes that are served together have two rows, 128 bytes.
        uint at = place.Ring + (uint)(stage * HopperSweep.StageBytes) + (uint)(lane * 16);
        w.Row0 = SharedWindow.Load(at);
        w.Row1 = SharedWindow.Load(at + RowStepBytes);
        w.Row2 = SharedWindow.Load(at + (2 * RowStepBytes));
        w.Row3 = SharedWindow.Load(at + (3 * RowStepBytes));
        HopperSweepAside.Load<TFormat, TTiles>(a, place, (chunk, tile), stage, ref w);
        return w;
    }

    /// <summary>A chunk's inputs in one tile of x, as they lie; behind the last chunk its own. They may be the output of the launch before.</summary>
    public static SkinnyInputs Inputs<TInput>(HopperSweepPlace block, HopperSweepInputPlace place, int chunk)
        where TInput : struct, IStreamedInputs
    {
        chunk = IntrinsicMath.Min(chunk, block.Chunks - 1);
        SkinnyInputs inputs = default;
        if (TInput.AreCodes)
        {
            inputs.X0 = Mem.LoadGlobalFrom(place.Row + (chunk * SkinnyGemm.ChunkBytes));
            inputs.Operand = Mem.LoadHalfFrom(place.Groups + (chunk * SkinnyGemm.ChunkBytes / 8));
            return inputs;
        }
        long from = place.Row + (chunk * (2 * SkinnyGemm.ChunkBytes * sizeof(ushort)));
        inputs.X0 = Mem.LoadGlobalFrom(from);
        inputs.X1 = Mem.LoadGlobalFrom(from + 16);
        inputs.X2 = Mem.LoadGlobalFrom(from + 32);
        inputs.X3 = Mem.LoadGlobalFrom(from + 48);
        return inputs;
    }

    /// <summary>The same as they are multiplied.</summary>
    public static SkinnyInputs Decode<TFormat, TInput>(SkinnyInputs stored)
        where TFormat : struct, IStreamedFormat
        where TInput : struct, IStreamedInputs
    {
        uint operand = TInput.AreCodes ? TFormat.PrepareOperand(stored.Operand) : 0;
        SkinnyInputs inputs = default;
        inputs.X0 = TInput.Decode<TFormat>(stored.X0, 0, operand);
        inputs.X1 = TInput.Decode<TFormat>(TInput.AreCodes ? stored.X0 : stored.X1, 1, operand);
        inputs.X2 = TInput.Decode<TFormat>(TInput.AreCodes ? stored.X0 : stored.X2, 2, operand);
        inputs.X3 = TInput.Decode<TFormat>(TInput.AreCodes ? stored.X0 : stored.X3, 3, operand);
        return inputs;
    }
}
