using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Kernels;

/// <summary>The ways from E4M3 to BF16: all codes in all positions of a word.</summary>
public sealed class Fp8DecodingTests
{
    internal struct Args
    {
        public ArrayView<uint> Words;
        public ArrayView<uint> Pairs;
    }

    internal static void Decode<TDecoder>(Args a)
        where TDecoder : struct, IFp8Decoder
    {
        ArrayView<ushort> table = TDecoder.PrepareTable();
        for (int i = Group.IdxX; i < a.Words.Length; i += Group.DimX)
        {
            a.Pairs[2 * i] = TDecoder.DecodePair(a.Words[i], 0, table);
            a.Pairs[(2 * i) + 1] = TDecoder.DecodePair(a.Words[i], 1, table);
        }
    }

    // The decoders of tensor-core tiles: four words at a time, one of them a step.
    internal static void DecodeTiled<TFormat>(Args a)
        where TFormat : struct, ITiledFormat
    {
        for (int i = Group.IdxX; i < a.Words.Length; i += Group.DimX)
        {
            int first = i & ~3;
            U4 codes;
            codes.X = a.Words[first];
            codes.Y = a.Words[first + 1];
            codes.Z = a.Words[first + 2];
            codes.W = a.Words[first + 3];
            U2 pairs = TFormat.Decode(codes, i & 3, 0);
            a.Pairs[2 * i] = pairs.X;
            a.Pairs[(2 * i) + 1] = pairs.Y;
        }
    }

    private static readonly KernelDefinition<Args> Tiled = new(DecodeTiled<TiledFp8>, new KernelTraits(64));
    private static readonly KernelDefinition<Args> Extended = new(DecodeTiled<TiledFp8Extended>, new KernelTraits(64));
    private static readonly KernelDefinition<Args> Table = new(Decode<Fp8Table>, new KernelTraits(64));
    private static readonly KernelDefinition<Args> BitMove = new(Decode<Fp8BitMove>, new KernelTraits(64));
    private static readonly KernelDefinition<Args> Hardware = new(Decode<Fp8Hardware>, new KernelTraits(64));

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void AllAgreeWithTheDefinition(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        // Each code in each byte of a word, beside different neighbours, and in each lane of a warp.
        uint[] words = [.. Enumerable.Range(0, 32 * 256).Select(i => (i + (i >> 8)) & 255).Select(c => (uint)c | ((uint)(c + 64) & 255) << 8 | ((uint)(c + 128) & 255) << 16 | ((uint)(c + 192) & 255) << 24)];
        float[] table = Run(device, Table, words), bitMove = Run(device, BitMove, words), hardware = Run(device, Hardware, words), tiled = Run(device, Tiled, words), extended = Run(device, Extended, words);
        for (int i = 0; i < 4 * words.Length; i++)
        {
            int code = (int)(words[i / 4] >> (8 * (i % 4))) & 255;
            float expected = (float)MatrixOracle.E4M3[code];
            AssertSame(expected, table[i], code);
            AssertSame(expected, hardware[i], code);
            // Bit moves read the two NaN codes as ±480; loading refuses them.
            float moved = float.IsNaN(expected) ? (code == 0x7F ? 480 : -480) : expected;
            AssertSame(moved, bitMove[i], code);
            AssertSame(moved, tiled[i], code);
            AssertSame(moved, extended[i], code);
        }
    }

    private static void AssertSame(float expected, float actual, int code) =>
        Assert.True(expected.Equals(actual) && (float.IsNaN(expected) || float.IsNegative(expected) == float.IsNegative(actual)), $"Code 0x{code:X2} gave {actual}, expected {expected}.");

    private static float[] Run(GpuDevice device, KernelDefinition<Args> kernel, uint[] words)
    {
        using var input = GuardedBuffer<uint>.Input(device, words);
        using var output = GuardedBuffer<uint>.Output(device, 2 * words.Length);
        device.Launch(kernel, device.DefaultStream, (1, 1, 1), Math.Min(64, device.MaxThreadsPerBlock), 0, new Args { Words = input.View, Pairs = output.View });
        return [.. output.ToArray().SelectMany(pair => new[] { Bf16.Low(pair), Bf16.High(pair) })];
    }
}
