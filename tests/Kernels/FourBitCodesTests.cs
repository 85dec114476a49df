using GpuKit.Ilgpu.Kernels;
using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Kernels;

/// <summary>E2M1 and INT4 codes: all of them in all positions of a word, and every rounding boundary.</summary>
public sealed class FourBitCodesTests
{
    internal struct DecodeArgs
    {
        public ArrayView<uint> Words;
        public ArrayView<uint> Pairs;
        public ArrayView<ushort> Singles;
        public uint Offset;
    }

    internal static void Decode<TFormat>(DecodeArgs a)
        where TFormat : struct, IWeightFormat
    {
        ArrayView<ushort> table = TFormat.PrepareTable();
        for (int i = Group.IdxX; i < a.Words.Length; i += Group.DimX)
        {
            a.Pairs[4 * i] = TFormat.DecodePair(a.Words[i], 0, a.Offset, table);
            a.Pairs[(4 * i) + 1] = TFormat.DecodePair(a.Words[i], 1, a.Offset, table);
            a.Pairs[(4 * i) + 2] = TFormat.DecodePair(a.Words[i], 2, a.Offset, table);
            a.Pairs[(4 * i) + 3] = TFormat.DecodePair(a.Words[i], 3, a.Offset, table);
            for (int c = 8 * i; c < 8 * (i + 1); c++)
                a.Singles[c] = TFormat.DecodeOne(a.Words.Cast<byte>(), c, a.Offset, table);
        }
    }

    internal struct EncodeArgs
    {
        public ArrayView<float> Values;
        public ArrayView<int> Codes;
    }

    internal static void EncodeE2M1(EncodeArgs a)
    {
        for (int i = Group.IdxX; i < a.Values.Length; i += Group.DimX)
            a.Codes[i] = (int)Nvfp4Code.E2M1(a.Values[i]);
    }

    internal static void EncodeInt4(EncodeArgs a)
    {
        for (int i = Group.IdxX; i < a.Values.Length; i += Group.DimX)
            a.Codes[i] = Int4Code.Encode(a.Values[i], 1f);
    }

    private static readonly KernelDefinition<DecodeArgs> DecodeNvfp4Kernel = new(Decode<Nvfp4>, new KernelTraits(64));
    private static readonly KernelDefinition<DecodeArgs> DecodeInt4Kernel = new(Decode<Int4>, new KernelTraits(64));
    private static readonly KernelDefinition<DecodeArgs> DecodeInt4ZeroKernel = new(Decode<Int4Zero>, new KernelTraits(64));
    private static readonly KernelDefinition<EncodeArgs> EncodeE2M1Kernel = new(EncodeE2M1, new KernelTraits(64));
    private static readonly KernelDefinition<EncodeArgs> EncodeInt4Kernel = new(EncodeInt4, new KernelTraits(64));

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void BothDecodersAgreeWithTheDefinition(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        Check(device, DecodeNvfp4Kernel, 0, MatrixOracle.E2M1);
        Check(device, DecodeInt4Kernel, 0, MatrixOracle.Int4);
        for (int zero = 0; zero < 16; zero++)
        {
            uint minus = BitConverter.SingleToUInt32Bits(-128 - zero) >> 16;
            Check(device, DecodeInt4ZeroKernel, minus | (minus << 16), [.. Enumerable.Range(0, 16).Select(code => (double)(code - zero))]);
        }
    }

    private static void Check(GpuDevice device, KernelDefinition<DecodeArgs> kernel, uint offset, double[] values)
    {
        // Each byte in each position, beside different neighbours, and on a card in each lane of a warp: emulated lanes are alike.
        uint[] words = [.. Enumerable.Range(0, (device.IsCuda ? 32 : 4) * 256).Select(i => (i + (i >> 8)) & 255).Select(c => (uint)c | ((uint)(c + 64) & 255) << 8 | ((uint)(c + 131) & 255) << 16 | ((uint)(c + 207) & 255) << 24)];
        using var input = GuardedBuffer<uint>.Input(device, words);
        using var pairs = GuardedBuffer<uint>.Output(device, 4 * words.Length);
        using var singles = GuardedBuffer<ushort>.Output(device, 8 * words.Length);
        var args = new DecodeArgs { Words = input.View, Pairs = pairs.View, Singles = singles.View, Offset = offset };
        device.Launch(kernel, device.DefaultStream, (1, 1, 1), Math.Min(64, device.MaxThreadsPerBlock), 0, args);
        uint[] two = pairs.ToArray();
        ushort[] one = singles.ToArray();
        for (int i = 0; i < one.Length; i++)
        {
            float value = (float)values[(words[i / 8] >> (4 * (i % 8))) & 15];
            ushort expected = (ushort)(BitConverter.SingleToUInt32Bits(value) >> 16);
            Assert.Equal(expected, one[i]);
            Assert.Equal(expected, (ushort)(two[i / 2] >> (16 * (i % 2))));
        }
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void E2M1RoundsToTheNearestAndTiesToTheEvenCode(TestDevice which)
    {
        var cases = new List<(float Value, int Code)>();
        for (int code = 0; code < 8; code++)
        {
            cases.Add(((float)MatrixOracle.E2M1[code], code));
            if (code == 7)
                break;
            float middle = (float)(MatrixOracle.E2M1[code] + MatrixOracle.E2M1[code + 1]) / 2;
            cases.AddRange([(middle, code + (code & 1)), (MathF.BitDecrement(middle), code), (MathF.BitIncrement(middle), code + 1)]);
        }
        cases.AddRange([(6.5f, 7), (1e30f, 7), (float.PositiveInfinity, 7), (1e-45f, 0)]);
        cases.AddRange([.. cases.Select(c => (-c.Value, c.Code | 8))]);
        cases.AddRange([(float.NaN, 0), (-float.NaN, 0), (BitConverter.UInt32BitsToSingle(0x7F800001), 0)]);
        Assert.Equal(cases.Select(c => c.Code), Encode(which, EncodeE2M1Kernel, [.. cases.Select(c => c.Value)]));
        Assert.All(cases, c => Assert.Equal(c.Code, (int)Nvfp4Code.E2M1(c.Value)));
    }

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void Int4RoundsToTheNearestTiesToEvenAndClamps(TestDevice which)
    {
        var cases = new List<(float Value, int Code)>();
        for (int code = -8; code <= 7; code++)
            cases.AddRange([(code, code), (code + 0.25f, code), (code - 0.25f, code), (code + 0.5f, Math.Min(7, code + (code & 1)))]);
        cases.AddRange([(100, 7), (-100, -8), (float.PositiveInfinity, 7), (float.NegativeInfinity, -8), (1e30f, 7), (-1e30f, -8), (float.NaN, 0)]);
        int[] expected = [.. cases.Select(c => c.Code & 15)];
        Assert.Equal(expected, Encode(which, EncodeInt4Kernel, [.. cases.Select(c => c.Value)]));
        Assert.Equal(expected, cases.Select(c => (int)Int4Code.Encode(c.Value, 1f)));
    }

    [Fact]
    public void GroupScalesAreE4M3Numbers()
    {
        for (int code = 0; code < 256; code++)
            if (double.IsFinite(MatrixOracle.E4M3[code]))
                Assert.Equal((float)MatrixOracle.E4M3[code], Nvfp4.GroupScale((byte)code));
    }

    private static int[] Encode(TestDevice which, KernelDefinition<EncodeArgs> kernel, float[] values)
    {
        GpuDevice device = TestDevices.Get(which);
        using var input = GuardedBuffer<float>.Input(device, values);
        using var output = GuardedBuffer<int>.Output(device, values.Length);
        device.Launch(kernel, device.DefaultStream, (1, 1, 1), Math.Min(64, device.MaxThreadsPerBlock), 0, new EncodeArgs { Values = input.View, Codes = output.View });
        return output.ToArray();
    }
}
