using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>What <see cref="HopperSweep"/> loads, and from where.</summary>
internal static class HopperSweepLoads
{
    // Rows of a unit that a lane's four are apart.
    private const int RowStep = 8, RowStepBytes = RowStep * SkinnyGemm.ChunkBytes;

    /// <summary>Copies what is stored beside the codes of a unit, a row a lane: eight E4M3 multipliers, or one float32 and the word that has its zero point.</summary>
    public static void RequestAside<TFormat>(HopperSweepPlace place, (uint Aside, uint Zeros) from, int stage)
        where TFormat : struct, IStreamedFormat
    {
        int at = stage * HopperSweep.AsideBytes / sizeof(uint), lane = Group.IdxX & 31;
        if (TFormat.HasGroupScales)
            CpAsync.Copy8From(ref place.Aside[at + (lane * 2)], place.AsideFrom + from.Aside, 8);
        else
            CpAsync.Copy4From(ref place.Aside[at + lane], place.AsideFrom + from.Aside);
        if (TFormat.HasZeroPoints)
        {
            long word = (place.ZeroPoints + from.Zeros) & ~3L;
            CpAsync.CopyPartOf4From(ref place.Aside[at + SkinnyGemm.Rows + lane], word, (int)IntrinsicMath.Min(place.ZerosEnd - word, sizeof(uint)));
        }
    }

    /// <summary>A lane's codes of a stage, and what multiplies them or their sums.</summary>
    public static SkinnyChunk Stage<TFormat>(HopperSkinnyArgs a, HopperSweepPlace place, int chunk, int tile, int stage)
        where TFormat : struct, IStreamedFormat
    {
        int lane = Group.IdxX & 31;
        SkinnyChunk w = default;
        // Eight lanes that are served together have two rows, 128 bytes.
        uint at = place.Ring + (uint)(stage * HopperSweep.StageBytes) + (uint)(lane * 16);
        w.Row0 = SharedWindow.Load(at);
        w.Row1 = SharedWindow.Load(at + RowStepBytes);
        w.Row2 = SharedWindow.Load(at + (2 * RowStepBytes));
        w.Row3 = SharedWindow.Load(at + (3 * RowStepBytes));
        uint aside = place.AsideRing + (uint)(stage * HopperSweep.AsideBytes);
        if (TFormat.HasGroupScales)
        {
            aside += (uint)(lane * 2);
            w.Operand0 = SharedWindow.LoadHalf(aside);
            w.Operand1 = SharedWindow.LoadHalf(aside + (RowStep * 8));
            w.Operand2 = SharedWindow.LoadHalf(aside + (2 * RowStep * 8));
            w.Operand3 = SharedWindow.LoadHalf(aside + (3 * RowStep * 8));
            return w;
        }
        aside += (uint)((lane >> 2) * 4);
        w.Scale0 = SharedWindow.LoadWord(aside);
        w.Scale1 = SharedWindow.LoadWord(aside + (RowStep * 4));
        w.Scale2 = SharedWindow.LoadWord(aside + (2 * RowStep * 4));
        w.Scale3 = SharedWindow.LoadWord(aside + (3 * RowStep * 4));
        if (TFormat.HasZeroPoints)
        {
            aside += SkinnyGemm.Rows * 4;
            // Of rows eight apart bytes are whole words apart.
            int block = (chunk * SkinnyGemm.ChunkCodes<TFormat>()) >> a.ScaleColumnShift, row = place.FirstRow + place.TileRow(tile) + (lane >> 2);
            int shift = (8 * (((int)a.ZeroPoints + (row * place.ZeroStep) + (block >> 1)) & 3)) + (4 * (block & 1));
            w.Operand0 = (SharedWindow.LoadWord(aside) >> shift) & 15;
            w.Operand1 = (SharedWindow.LoadWord(aside + (RowStep * 4)) >> shift) & 15;
            w.Operand2 = (SharedWindow.LoadWord(aside + (2 * RowStep * 4)) >> shift) & 15;
            w.Operand3 = (SharedWindow.LoadWord(aside + (3 * RowStep * 4)) >> shift) & 15;
        }
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
