using System.Reflection;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Ptx;
using ILGPU;
using ILGPU.Backends.PTX;
using ILGPU.IR;
using ILGPU.IR.Intrinsics;
using ILGPU.Runtime.Cuda;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Runtime;

/// <summary>From attribute to text: placeholders, architectures, fallbacks and errors, all without a card.</summary>
public sealed class PtxPipelineTests
{
    internal struct Args
    {
        public ArrayView<uint> Values;
    }

    internal struct Pair
    {
        public uint First;
        public float Second;
    }

    internal static class Instructions
    {
        [IntrinsicImplementation, Ptx("needs90 %d, %0;", MinArch = 90)]
        public static uint NeedsHopper(uint x) => x;

        [IntrinsicImplementation, Ptx("needs90a %d, %0;", ExactArch = "90a")]
        public static uint ExactlyHopper(uint x) => x;

        [IntrinsicImplementation, Ptx("has89 %d, %0;", MinArch = 89, Fallback = nameof(Software))]
        public static uint WithFallback(uint x) => x;

        public static uint Software(uint x) => x + 12345;

        [IntrinsicImplementation, Ptx("fields %d.0, %d.1, %0.1, %0.0, %c1, 100%%;")]
        public static Pair Fields(Pair p, int constant) => p;

        [IntrinsicImplementation, Ptx("%=0inout %d, %1;")]
        public static U4 InOut(U4 accumulator, uint x) => accumulator;

        [IntrinsicImplementation, Ptx("addresses [%g0], [%s1];")]
        public static void Addresses(ref uint global, ref uint shared)
        {
        }
    }

    internal static void UsesHopper(Args a) => a.Values[0] = Instructions.NeedsHopper(a.Values[1]);

    internal static void UsesExactlyHopper(Args a) => a.Values[0] = Instructions.ExactlyHopper(a.Values[1]);

    internal static void UsesFallback(Args a) => a.Values[0] = Instructions.WithFallback(a.Values[1]);

    internal static void UsesOperands(Args a)
    {
        ArrayView<uint> shared = SharedMemory.Allocate<uint>(32);
        Pair pair = default;
        pair.First = a.Values[0];
        pair.Second = 2;
        pair = Instructions.Fields(pair, 42);
        U4 four = default;
        four = Instructions.InOut(four, pair.First);
        Instructions.Addresses(ref a.Values[3], ref shared[4]);
        a.Values[1] = four.Z + (uint)(int)pair.Second;
    }

    [Theory]
    [InlineData("80", false)]
    [InlineData("89", false)]
    [InlineData("90a", true)]
    [InlineData("100a", true)]
    [InlineData("120a", true)]
    public void ALowestArchitectureIsALowestArchitecture(string arch, bool has) =>
        AssertCompiles(UsesHopper, arch, has, "Instructions.NeedsHopper needs sm_90 or newer");

    [Theory]
    [InlineData("80", false)]
    [InlineData("89", false)]
    [InlineData("90a", true)]
    [InlineData("100a", false)]
    [InlineData("120a", false)]
    public void AnExactArchitectureIsNeitherBeforeNorAfter(string arch, bool has) =>
        AssertCompiles(UsesExactlyHopper, arch, has, "Instructions.ExactlyHopper needs exactly sm_90a");

    [Theory]
    [InlineData("80", "12345")]
    [InlineData("86", "12345")]
    [InlineData("89", "has89 ")]
    [InlineData("120a", "has89 ")]
    public void AFallbackIsCompiledWhereTheInstructionIsMissing(string arch, string expected) =>
        Assert.Contains(expected, Compile(UsesFallback, arch), StringComparison.Ordinal);

    [Fact]
    public void EveryKindOfOperandIsExpanded()
    {
        string text = Compile(UsesOperands, "80");
        Assert.Matches(@"fields %r\d+, %f\d+, %f\d+, %r\d+, 42, 100%;", text);
        Assert.Matches(@"inout \{%r\d+, %r\d+, %r\d+, %r\d+\}, %r\d+;", text);
        Assert.Matches(@"addresses \[(%rd\d+|address0)\], \[(%rd\d+|address1)\];", text);
        Assert.False(PtxText.UsesLocalMemory(text));
    }

    [Fact]
    public void TextIsRetargetedAndFreeOfUniformBranches()
    {
        foreach (PtxTarget target in PtxTarget.All)
        {
            string text = PtxCompiler.Compile(LinearKernels.All.First(), target);
            Assert.Contains($".target {target}\n", text.ReplaceLineEndings("\n"), StringComparison.Ordinal);
            Assert.Contains($".version {target.Version.Major}.{target.Version.Minor}", text, StringComparison.Ordinal);
            Assert.DoesNotContain(".uni", text, StringComparison.Ordinal);
            Assert.DoesNotContain(".func", text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void ANewerInstructionIsFoundByItsName() =>
        Assert.All(PtxIntrinsics.NewerVersions, i => Assert.Matches("^[a-z]+(\\.[a-z0-9:_]+)+$", i.Mnemonic));

    [Theory]
    [InlineData("Native", "89", "8.4")]
    [InlineData("Native", "90a", "8.4")]
    [InlineData("Native", "120a", "8.7")]
    [InlineData("NativeScaled", "120a", "8.7")]
    [InlineData("BitMove", "89", "8.1")]
    [InlineData("BitMove", "80", "7.4")]
    public void OnlyKernelsWithANewerInstructionNeedANewerVersion(string decoding, string arch, string version) =>
        Assert.Contains($".version {version}\n", PtxCompiler.Compile(CodeKernels.Get(Enum.Parse<Fp8Decoding>(decoding), GemmTile.M32N64K128), PtxTarget.Parse(arch)).ReplaceLineEndings("\n"), StringComparison.Ordinal);

    [Theory]
    [InlineData(8, 0, "sm_80")]
    [InlineData(8, 7, "sm_86")]
    [InlineData(9, 0, "sm_90a")]
    [InlineData(10, 0, "sm_100a")]
    [InlineData(10, 3, "sm_100")]
    [InlineData(12, 0, "sm_120a")]
    [InlineData(12, 1, "sm_120")]
    public void EveryDeviceGetsATargetThatItLoads(int major, int minor, string expected) =>
        Assert.Equal(expected, PtxTarget.ForDevice(new CudaArchitecture(major, minor)).ToString());

    [Fact]
    public void DevicesBeforeAmpereAreRefused()
    {
        var e = Assert.Throws<GpuException>(() => PtxTarget.ForDevice(CudaArchitecture.SM_75));
        Assert.Equal(GpuFault.NotSupported, e.Fault);
        Assert.Contains("7.5", e.Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => PtxTarget.Parse("sm_42"));
        Assert.Equal("sm_90a", PtxTarget.Parse("90a").ToString());
    }

    [Fact]
    public void AutoTakesTheCpuWhenTheCardIsTooOld()
    {
        CudaDeviceInfo[] cards = [new(0, "RTX 2080", new Version(7, 5), 1, 1), new(1, "A100", new Version(8, 0), 1, 1)];
        Assert.Equal("RTX 2080 has compute capability 7.5 and the kernels need 8.0", DeviceCatalog.TooOld(cards, 0));
        Assert.Null(DeviceCatalog.TooOld(cards, 1));
        Assert.Null(DeviceCatalog.TooOld(cards, 2));
    }

    private static void AssertCompiles(Action<Args> kernel, string arch, bool has, string error)
    {
        if (has)
            Assert.Contains("needs90", Compile(kernel, arch), StringComparison.Ordinal);
        else
            Assert.Contains(error, Assert.Throws<PtxInstructionNotSupportedException>(() => Compile(kernel, arch)).Message, StringComparison.Ordinal);
    }

    private static string Compile(Action<Args> kernel, string arch)
    {
        PtxTarget target = PtxTarget.Parse(arch);
        using Context context = PtxCompiler.CreateContext(static _ => { });
        foreach (MethodInfo method in typeof(Instructions).GetMethods().Where(m => m.IsDefined(typeof(PtxAttribute))))
            PtxIntrinsics.Register(context.GetIntrinsicManager(), method);
        using var backend = new PTXBackend(context, new CudaCapabilityContext(target.Architecture), target.Architecture, target.Version, null);
        var compiled = (PTXCompiledKernel)PtxCompiler.Compile(backend, new KernelDefinition<Args>(kernel, new KernelTraits(32)));
        return PtxText.Prepare(compiled.PTXAssembly, target);
    }
}
