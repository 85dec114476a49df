using System.Reflection;
using System.Text.RegularExpressions;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Ptx;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using Group = ILGPU.Group;

namespace GpuKit.Ilgpu.Tests.Kernels.Isa;

/// <summary>
/// Every instruction in a kernel, those that no operator uses yet included: its text compiles for every architecture, and on
/// a card it does what the emulation does.
/// </summary>
public sealed partial class EveryInstructionTests
{
    private const int Lanes = 32;
    private const int Words = 32;

    internal struct Args
    {
        public ArrayView<uint> Input;
        public ArrayView<uint> Output;
    }

    /// <summary>Global and shared memory, and cp.async; each lane passes words to the lane five before it.</summary>
    internal static void Memory(Args a)
    {
        ArrayView<uint> shared = SharedMemory.Allocate<U4>(Lanes * Words / 4).Cast<uint>();
        int at = Group.IdxX * Words, other = ((Group.IdxX + 5) & (Lanes - 1)) * Words;
        Mem.PrefetchL2(ref a.Input[at]);
        GridDependency.Release();
        GridDependency.Wait();
        CpAsync.Copy16(ref shared[at], ref a.Input[at]);
        CpAsync.Commit();
        CpAsync.Copy16ZeroFill(ref shared[at + 4], ref a.Input[at + 4], 12);
        CpAsync.Copy16At(ref shared[at], 80, ref a.Input.Cast<U4>()[(at + 20) >> 2], (int)(a.Input[at] & 1));
        CpAsync.Copy16OfLineAt(ref shared[at], 80, ref a.Input.Cast<U4>()[(at + 20) >> 2], (int)(a.Input[at] & 1));
        CpAsync.Copy8ZeroFill(ref shared[at + 8], ref a.Input[at + 8], 4);
        CpAsync.Copy4ZeroFill(ref shared[at + 10], ref a.Input[at + 10], 0);
        CpAsync.Copy8(ref shared[at + 16], ref a.Input[at + 2]);
        CpAsync.Copy4(ref shared[at + 18], ref a.Input[at + 5]);
        shared[at + 11] = Mem.LoadGlobal1(ref a.Input[at + 11]) ^ Mem.LoadL2Word(ref a.Input[at + 2]) ^ Mem.LoadL2(ref a.Input[at + 4]).Z ^ Mem.LoadL2At(ref a.Input[at + 4], 16).W ^ Mem.LoadL2Pair(ref a.Input[at + 6]).Y ^ Mem.LoadGlobal(ref a.Input[at]).Y ^ Mem.LoadL2If(ref a.Input[at + 12], a.Input[at] & 1).Z ^ Mem.LoadRelaxed(ref a.Input[at + 13]) ^ Mem.LoadGlobalOver(ref a.Input[at + 8], 16, a.Input[at] & 1, Mem.LoadGlobal(ref a.Input[at])).Y ^ Mem.LoadStreamOver(ref a.Input[at + 4], 32, a.Input[at + 1] & 1, Mem.LoadGlobal(ref a.Input[at])).Z;
        CpAsync.Commit();
        CpAsync.Wait(1);
        U4 first = Mem.LoadShared(ref shared[at]); // the lane's own copy, of the finished group
        CpAsync.WaitAll();
        Mem.StoreShared(ref shared[at + 12], Mem.LoadGlobalAt(ref a.Input[at + 4], 32));
        U2 pair = Mem.LoadGlobal2(ref a.Input[at + 16]), streamedPair = Mem.LoadStream2(ref a.Input[at + 18]);
        pair.X ^= shared[at + 16];
        pair.Y ^= shared[at + 17];
        streamedPair.X ^= shared[at + 18];
        Mem.StoreShared2(ref shared[at + 16], pair);
        Mem.StoreShared2(ref shared[at + 18], streamedPair);
        U4 streamed = Mem.LoadStream(ref a.Input[at + 20]);
        // Half of the lanes copied zeros.
        streamed.X ^= Mem.LoadShared(ref shared[at + 20]).Y;
        Mem.StoreShared(ref shared[at + 20], streamed);
        Mem.StoreShared(ref shared[at + 24], Mem.LoadReadOnly(ref a.Input[at + 24]));
        Mem.StoreSharedWordAt(ref shared[at + 24], 16, Mem.LoadStream1(ref a.Input[at + 28]));
        shared[at + 29] = first.X ^ first.W ^ Mem.LoadGlobal2(ref a.Input[at + 2]).Y ^ Mem.LoadStream2(ref a.Input[at + 6]).X ^ Mem.LoadGlobalHalf(ref a.Input.Cast<byte>()[(4 * at) + 6]) ^ Mem.LoadReadOnly1(ref a.Input[at + 1]) ^ Mem.LoadReadOnlyHalf(ref a.Input.Cast<byte>()[(4 * at) + 2]);
        Mem.StoreSharedAt(ref shared[at + 28], 8, Interop.IntAsFloat(a.Input[at + 9] & 0x3FFFFFFF));
        Fence.Device();
        Block.Barrier();
        for (int i = 0; i < 24; i += 4)
            Mem.StoreGlobal(ref a.Output[at + i], Mem.LoadShared(ref shared[other + i]));
        Mem.StoreStream(ref a.Output[at + 24], Mem.LoadShared(ref shared[other + 24]));
        Mem.StoreGlobal2(ref a.Output[at + 28], Mem.LoadShared2(ref shared[other + 28]));
        Mem.StoreRelaxed(ref a.Output[at + 30], Mem.LoadShared2At(ref shared[other + 26], 16).X);
        Mem.AddRelaxed(ref a.Output[at + 30], a.Input[at + 5]);
        Mem.Acquire(ref a.Output[at + 30]);
        a.Output[at + 31] = Mem.LoadSharedAt(ref shared[other], 48).Z ^ (uint)Fence.Count(ref a.Output.Cast<int>()[at + 30]) ^ (3 * (uint)Fence.CountReleased(ref a.Output.Cast<int>()[at + 30]));
    }

    /// <summary>ldmatrix of every kind into both products. Inputs are small whole numbers: sums are exact in any order.</summary>
    internal static void Matrices(Args a)
    {
        ArrayView<ushort> shared = SharedMemory.Allocate<U4>(Lanes * Words / 4).Cast<ushort>();
        int lane = Group.IdxX, at = lane * Words;
        for (int i = 0; i < Words; i += 4)
            Mem.StoreShared(ref shared.Cast<uint>()[at + i], Mem.LoadGlobal(ref a.Input[at + i]));
        Block.Barrier();
        // A row of eight elements a lane, 16 bytes; the first kilobyte is BF16, what follows F16.
        U4 a0 = LdMatrix.X4(ref shared[lane * 8]), a1 = LdMatrix.X4Trans(ref shared[1024 + (lane * 8)]);
        U2 b0 = LdMatrix.X2(ref shared[256 + (lane * 8)]), b1 = LdMatrix.X2Trans(ref shared[1280 + (lane * 8)]);
        F4 none = default;
        none.Y = lane;
        F4 bf16 = Mma.Bf16(a0, b0, none), f16 = Mma.F16(a1, b1, none);
        StoreSums(a, at, bf16);
        StoreSums(a, at + 4, f16);
        a.Output[at + 8] = LdMatrix.X1(ref shared[512 + (lane * 8)]);
        a.Output[at + 9] = LdMatrix.X1Trans(ref shared[512 + (lane * 8)]);
        U4 further = LdMatrix.X4At(ref shared[lane * 8], 1024);
        a.Output[at + 10] = further.X ^ (further.Y << 1);
        a.Output[at + 11] = further.Z ^ (further.W << 1);
        further = LdMatrix.X4TransAt(ref shared[lane * 8], 1024);
        a.Output[at + 12] = further.X ^ (further.Y << 1);
        a.Output[at + 13] = further.Z ^ (further.W << 1);
        a.Output[at + 14] = Interop.FloatAsInt(Fast.Max(bf16.X, f16.X));
        U4 whole = default;
        whole.Y = (uint)lane << 28; // sums wrap
        whole = Mma.S8(a0, b1, whole);
        a.Output[at + 15] = whole.X;
        a.Output[at + 16] = whole.Y;
        a.Output[at + 17] = whole.Z;
        a.Output[at + 18] = whole.W;
    }

    /// <summary>Products of codes, of small whole numbers, too.</summary>
    internal static void Codes(Args a)
    {
        int at = Group.IdxX * Words;
        F4 sum = default;
        sum.Z = Group.IdxX;
        sum = Mma.E4M3(Mem.LoadGlobal(ref a.Input[at]), Mem.LoadGlobal2(ref a.Input[at + 4]), sum);
        StoreSums(a, at, sum);
    }

    /// <summary>Products of codes of any kind and multipliers that are powers of two.</summary>
    internal static void ScaledCodes(Args a)
    {
        int at = Group.IdxX * Words;
        F4 sum = default;
        sum.Y = Group.IdxX;
        sum = Mma.Nvfp4(Mem.LoadGlobal(ref a.Input[at]), Mem.LoadGlobal2(ref a.Input[at + 4]), sum, a.Input[at + 6] & 0x38383838u, a.Input[at + 7] & 0x38383838u);
        StoreSums(a, at, sum);
        // Half, one, two or four.
        StoreSums(a, at + 4, Mma.ScaledE4M3(Mem.LoadGlobal(ref a.Input[at]), Mem.LoadGlobal2(ref a.Input[at + 4]), sum, 0x7Eu + (a.Input[at + 6] & 3u), 0x7Eu + (a.Input[at + 7] & 3u)));
    }

    private static void StoreSums(Args a, int at, F4 sums)
    {
        a.Output[at] = Interop.FloatAsInt(sums.X);
        a.Output[at + 1] = Interop.FloatAsInt(sums.Y);
        a.Output[at + 2] = Interop.FloatAsInt(sums.Z);
        a.Output[at + 3] = Interop.FloatAsInt(sums.W);
    }

    /// <summary>Bits, conversions, exact arithmetic and the warp's collectives.</summary>
    internal static void Exact(Args a)
    {
        int lane = Group.IdxX, at = lane * Words;
        uint u = a.Input[at], v = a.Input[at + 1], w = a.Input[at + 2];
        float x = Interop.IntAsFloat(a.Input[at + 3]), y = Interop.IntAsFloat(a.Input[at + 4]), z = Interop.IntAsFloat(a.Input[at + 5]);
        a.Output[at] = Bits.Prmt(u, v, w);
        a.Output[at + 1] = Bits.Lop3(u, v, w, 0xCA);
        a.Output[at + 2] = (uint)(Bits.PopCount(u) + (Bits.LeadingZeros(v >> (lane & 31)) << 8));
        a.Output[at + 3] = Cvt.Bf16x2(x, y);
        a.Output[at + 4] = Cvt.Bf16(z);
        a.Output[at + 5] = Cvt.F16x2(x, y);
        a.Output[at + 6] = Interop.FloatAsInt(Cvt.F16Low(u));
        a.Output[at + 7] = Interop.FloatAsInt(Cvt.F16High(u));
        a.Output[at + 8] = Cvt.F16x2FromE4M3x2((ushort)(u & 0xFFFF));
        a.Output[at + 9] = Cvt.E4M3x2LowToF16x2(u);
        a.Output[at + 10] = Cvt.E4M3x2HighToF16x2(u) ^ Cvt.MulF16x2(u, v);
        // Without NaN's codes, which are another number on cards that have no conversion.
        a.Output[at + 9] ^= Cvt.E4M3x2LowNumbersToF16x2(v & 0xFEFEFEFE) ^ Cvt.E4M3x2HighNumbersToF16x2(v & 0xFEFEFEFE);
        a.Output[at + 11] = Cvt.E4M3x2(x, y);
        a.Output[at + 12] = Cvt.FmaBf16x2(u, v, w);
        a.Output[at + 13] = (uint)Cvt.RoundToInt(x);
        a.Output[at + 14] = Interop.FloatAsInt(Fast.Fma(x, y, z));
        a.Output[at + 15] = Interop.FloatAsInt(Fast.Div(x, y));
        a.Output[at + 16] = Interop.FloatAsInt(Fast.Sqrt(x * x));
        a.Output[at + 17] = Interop.FloatAsInt(Fast.RoundEven(x));
        a.Output[at + 18] = Interop.FloatAsInt(WarpOps.Sum(x));
        a.Output[at + 19] = Interop.FloatAsInt(WarpOps.Max(y));
        ArgMaxResult best = WarpOps.ArgMax(z, lane ^ 7);
        a.Output[at + 20] = Interop.FloatAsInt(best.Value);
        a.Output[at + 21] = (uint)best.Index;
        a.Output[at + 22] = (uint)WarpOps.SumInt((int)u) ^ WarpOps.MaxUInt(v * 2654435761u);
        a.Output[at + 23] = WarpOps.Shuffle(u, (int)(v & 31));
        a.Output[at + 24] = Interop.FloatAsInt(WarpOps.ShuffleXor(x, 9));
        a.Output[at + 25] = WarpOps.LaneId() ^ (WarpOps.Any(u & 7) << 8) ^ (WarpOps.Any(u & 0) << 9) ^ (WarpOps.Ballot(u & 8) << 10);
        a.Output[at + 26] = Interop.FloatAsInt(Fast.Add(x, y));
        a.Output[at + 27] = Interop.FloatAsInt(Fast.Sub(x, z));
        a.Output[at + 28] = Interop.FloatAsInt(Fast.Mul(y, z));
        ulong product = Interop.FloatAsInt(Fast.FmaDouble(x, 1.0 / 3, y)), sum = Interop.FloatAsInt(WarpOps.SumDouble(x * (1.0 / 3)));
        a.Output[at + 29] = (uint)product ^ (uint)(product >> 32);
        a.Output[at + 30] = (uint)sum;
        a.Output[at + 31] = (uint)(sum >> 32);
        WarpOps.Barrier();
    }

    /// <summary>Approximations of positive numbers.</summary>
    internal static void Near(Args a)
    {
        int at = Group.IdxX * Words;
        float x = Interop.IntAsFloat(a.Input[at]);
        a.Output[at] = Interop.FloatAsInt(Fast.Ex2(x));
        a.Output[at + 1] = Interop.FloatAsInt(Fast.Lg2(x));
        a.Output[at + 2] = Interop.FloatAsInt(Fast.Rcp(x));
        a.Output[at + 3] = Interop.FloatAsInt(Fast.Rsqrt(x));
    }

    internal struct AddressArgs
    {
        public TensorMap Map;
        public long Source;
        public ArrayView<uint> Output;
    }

    /// <summary>What reckons with addresses; compiled only: HopperLinearTests runs it.</summary>
    internal static void Addresses(AddressArgs a)
    {
        ArrayView<byte> bytes = SharedMemory.GetDynamic<byte>();
        uint shared = SharedWindow.Open(ref bytes[0]);
        CpAsync.Copy8From(ref bytes.Cast<uint>()[4], a.Source, 4);
        CpAsync.Copy4From(ref bytes.Cast<uint>()[6], a.Source + 4);
        CpAsync.CopyPartOf4From(ref bytes.Cast<uint>()[7], a.Source + 4, 3);
        Warpgroup.Meet(1);
        Warpgroup.MeetPair(2);
        a.Output[Group.IdxX] = shared + Interop.FloatAsInt(Mem.LoadReadOnlyFloat(a.Source)) + Mem.LoadL2From(a.Source).Y + Fence.CountAround(a.Source + 32, 7);
        Mem.StoreGlobalTo(a.Source + 16, SharedWindow.Load(shared));
        Mem.StoreHalfTo(a.Source + 60, Mem.LoadHalfFrom(a.Source + 62) + Mem.LoadReadOnlyByte(a.Source + 63) + SharedWindow.Load2(shared + 8).Y + SharedWindow.LoadWord(shared + 12) + SharedWindow.LoadHalf(shared + 10));
        Mem.StoreWordTo(a.Source + 56, shared);
        Mem.StoreRelaxedTo(a.Source + 40, Mem.LoadRelaxedFrom(a.Source + 36) ^ Mem.LoadRelaxedFromIf(a.Source + 56, shared) ^ Mem.LoadRelaxed2From(a.Source + 48).Y);
        Mem.AddRelaxedTo(a.Source + 44, 1);
    }

    /// <summary>Copy engine, its barriers and clusters; compiled only: HopperLinearTests runs it.</summary>
    internal static void Asynchronous(AddressArgs a)
    {
        uint shared = SharedWindow.Open(ref SharedMemory.GetDynamic<byte>()[0]), barrier = shared + 1024;
        Mbarrier.Initialize(barrier, 1);
        Mbarrier.FenceInitialized();
        Cluster.Meet();
        Mbarrier.ArriveExpecting(barrier, 2064);
        BulkCopy.Load(shared + 2048, ref a.Output[0], 16, barrier);
        Tma.Prefetch(a.Map, 0);
        Tma.Load(a.Map, 0, shared, 0, 0, barrier);
        Tma.LoadForCluster(a.Map, 0, shared, 0, 0, barrier, 3);
        Mbarrier.Wait(barrier, 0);
        Mbarrier.ArriveAt(barrier, 1);
        Mbarrier.Arrive(barrier);
        Tma.FenceShared();
        Tma.Store(a.Map, 0, shared, 0, 0);
        Tma.Commit();
        Tma.WaitRead(0);
    }

    private static readonly KernelDefinition<AddressArgs>[] CompiledOnly =
    [
        new(Addresses, new KernelTraits(128)), new(Asynchronous, new KernelTraits(128, MinArch: 90)),
    ];

    private static readonly KernelDefinition<Args>[] Kernels =
    [
        new(Memory, new KernelTraits(Lanes)), new(Matrices, new KernelTraits(Lanes)), new(Exact, new KernelTraits(Lanes)), new(Near, new KernelTraits(Lanes)),
        new(Codes, new KernelTraits(Lanes, MinArch: 89)), new(ScaledCodes, new KernelTraits(Lanes, MinArch: 120, ExactArch: "120a")),
    ];

    public static TheoryData<string> Targets => [.. PtxTarget.All.Select(t => t.ToString())];

    [Theory]
    [MemberData(nameof(Targets))]
    public void Compiles(string name)
    {
        PtxTarget target = PtxTarget.Parse(name);
        string text = string.Concat(PtxCompiler.CompileAll([.. Kernels, .. CompiledOnly], [target]).Select(k => k.Text));
        Assert.False(PtxText.UsesLocalMemory(text));
        foreach (MethodInfo method in PtxIntrinsics.All)
        {
            var attribute = method.GetCustomAttribute<PtxAttribute>()!;
            // Those of sm_90a are Hopper's kernels' alone.
            if (attribute.MinArch > target.Number || (attribute.ExactArch is { } exact && (exact == "90a" || exact != target.Name)))
                continue;
            foreach (Match instruction in Mnemonic().Matches(attribute.Text))
                Assert.True(text.Contains(instruction.Value, StringComparison.Ordinal), $"{method.DeclaringType!.Name}.{method.Name}: no kernel here has {instruction.Value}");
        }
    }

    public static TheoryData<int> Indices => [.. Enumerable.Range(0, Kernels.Length)];

    [Theory]
    [MemberData(nameof(Indices))]
    public void A_card_does_what_the_emulation_does(int kernel)
    {
        GpuDevice card = TestDevices.Get(TestDevice.Cuda);
        Assert.SkipUnless(Kernels[kernel].Traits.RunsOn(card.Target!.Value), $"{card.Target} lacks the instructions of {Kernels[kernel].Name}.");
        uint[] input = Input(kernel), expected = Run(TestDevices.Get(TestDevice.CpuWarp32), kernel, input), actual = Run(card, kernel, input);
        for (int i = 0; i < expected.Length; i++)
        {
            if (Kernels[kernel].Method.Name == nameof(Near))
                Assert.Equal(Interop.IntAsFloat(expected[i]), Interop.IntAsFloat(actual[i]), Math.Abs(Interop.IntAsFloat(expected[i])) * 1e-6 + 1e-6);
            else
                Assert.True(expected[i] == actual[i], $"lane {i / Words}, word {i % Words}: 0x{expected[i]:X8} emulated, 0x{actual[i]:X8} on the card");
        }
    }

    private static uint[] Run(GpuDevice device, int kernel, uint[] input)
    {
        using DeviceBuffer<uint> source = device.Upload<uint>(input), result = device.Allocate<uint>(input.Length);
        result.Fill(device.DefaultStream, 0);
        device.Launch(Kernels[kernel], device.DefaultStream, (1, 1, 1), Lanes, 0, new Args { Input = source, Output = result });
        return result.ToArray(device.DefaultStream);
    }

    private static uint[] Input(int kernel)
    {
        var random = new Random(kernel);
        var words = new uint[Lanes * Words];
        for (int i = 0; i < words.Length; i++)
            words[i] = Kernels[kernel].Method.Name switch
            {
                nameof(Memory) or nameof(ScaledCodes) => (uint)random.NextInt64(1L << 32),
                nameof(Matrices) => i < words.Length / 2 ? Pair(() => ((BFloat16)random.Next(-8, 9)).Bits) : Pair(() => BitConverter.HalfToUInt16Bits((System.Half)random.Next(-8, 9))),
                nameof(Codes) => Pair(() => (ushort)(SmallCode(random) | SmallCode(random) << 8)),
                nameof(Near) => Interop.FloatAsInt(random.NextSingle() * 20 + 0.01f),
                _ => (i % Words) switch
                {
                    2 => Pair(() => (ushort)random.Next(0x3F00, 0x4000)), // finite as BF16, any digits as a selector
                    >= 3 => Interop.FloatAsInt((random.NextSingle() - 0.5f) * 1000),
                    _ => Pair(() => (ushort)random.Next(0x3000, 0x4700)), // finite as BF16, F16 and E4M3
                },
            };
        return words;
    }

    private static int SmallCode(Random random) => Cvt.E4M3x2(0, random.Next(-8, 9)) & 0xFF;

    private static uint Pair(Func<ushort> half) => half() | (uint)half() << 16;

    // What begins a statement; moves of temporaries are no instruction of interest.
    [GeneratedRegex(@"(?<![\w.%])(?!mov\.)[a-z]\w*(\.[\w:]+)+(?=[ ;])")]
    private static partial Regex Mnemonic();
}
