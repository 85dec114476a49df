using System.Runtime.CompilerServices;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Ptx;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
using ILGPU.Backends;
using ILGPU.Backends.EntryPoints;
using ILGPU.Backends.PTX;
using ILGPU.IR;
using ILGPU.IR.Transformations;
using ILGPU.IR.Values;
using ILGPU.Runtime;
using ILGPU.Runtime.Cuda;
using Xunit;

namespace GpuKit.Ilgpu.Tests.Runtime;

/// <summary>What is done to a kernel before ILGPU's own steps: it computes what it did, its text is its own, and branches that constants decide are gone.</summary>
public sealed class OptimisationTests
{
    private static readonly PtxTarget Hopper = PtxTarget.Parse("90a");

    internal struct Args
    {
        public ArrayView<int> Integers;
        public ArrayView<float> Floats;
    }

    // Behind calls, so that neither the C# compiler nor anything before ConstantCalls knows them.
    private static int Seven() => 7;

    private static int Two() => Seven() - 5;

    private static int Least() => unchecked(int.MaxValue - 6 + Seven());

    private static uint Most() => unchecked((uint)(Two() - 3));

    private static float Infinity() => Half() / (Two() - 2);

    private static float Half() => Two() * 0.25f;

    private static bool IsDeep() => Two() == 2 && Most() > 0 && Infinity() > float.MaxValue;

    internal static void Constants(Args a)
    {
        a.Integers[0] = Least();
        a.Integers[1] = (int)(Most() >> (Seven() * Two()));
        a.Integers[2] = -Seven() / Two();
        a.Integers[3] = -Seven() % Two();
        a.Integers[4] = (sbyte)(Seven() * 30);
        a.Integers[5] = Seven() << (33 - Two());
        a.Integers[6] = Most() < (uint)Seven() ? 1 : 2;
        a.Integers[7] = (int)(((long)Least() * Two()) >> 32);
        a.Integers[8] = IsDeep() ? 1234 : 4321;
        a.Floats[0] = Infinity();
        a.Floats[1] = -Infinity() + Infinity();
        a.Floats[2] = (float)(double)Half();
        a.Floats[3] = Least();
    }

    private static readonly KernelDefinition<Args> ConstantsKernel = new(Constants, new KernelTraits(32));

    [Theory]
    [MemberData(nameof(TestDevices.All), MemberType = typeof(TestDevices))]
    public void ConstantsOfMethodsAreWhatTheyWouldBeAtRunTime(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        using GuardedBuffer<int> integers = GuardedBuffer<int>.Output(device, 9);
        using GuardedBuffer<float> floats = GuardedBuffer<float>.Output(device, 4);
        device.Launch(ConstantsKernel, device.DefaultStream, (1, 1, 1), 1, 0, new Args { Integers = integers.View, Floats = floats.View });
        Assert.Equal([int.MinValue, 0x3FFFF, -3, -1, unchecked((sbyte)210), unchecked(7 << 31), 2, -1, 1234], integers.ToArray());
        Assert.Equal([float.PositiveInfinity, float.NaN, 0.5f, int.MinValue], floats.ToArray());
    }

    [Fact]
    public void OfABranchThatConstantsDecideNothingIsLeft()
    {
        string text = PtxCompiler.Compile(ConstantsKernel, Hopper);
        Assert.Contains("1234", text, StringComparison.Ordinal);
        Assert.DoesNotContain("4321", text, StringComparison.Ordinal);
        Assert.DoesNotContain("setp", text, StringComparison.Ordinal);
    }

    [Fact]
    public void TextsAreNoLongerWhenConstantsDecideFirst()
    {
        foreach (string name in new[] { "SkinnyGemm.Run<StreamedFp8,", "TileLinear.Run<StreamedFp8,", "Gemv.Run<Int4,", "HopperGemm.Run<", "RmsNorm.Run", "Gemm.Run<TiledInt4," })
        {
            KernelDefinition kernel = KernelCatalog.For(Hopper).First(k => k.Name.StartsWith(name, StringComparison.Ordinal));
            (string first, string last) = (Text(kernel, joinedFirst: true), Text(kernel, joinedFirst: false));
            (int before, int after) = (first.Count(c => c == '\n'), last.Count(c => c == '\n'));
            Assert.NotEqual(first, last);
            Assert.True(after <= before + 1 && after >= 0.9 * before, $"{kernel.Name} has {after} lines, and {before} when its methods are joined first.");
        }
    }

    [Theory]
    // A method is one block after a round; then 8 calls of Seven() go, 12 of Two() and Least(), 5 of Most() and Half(), 4 of Infinity(). IsDeep() had branches until then.
    [InlineData(1, 30)]
    [InlineData(2, 22)]
    [InlineData(3, 10)]
    [InlineData(4, 5)]
    [InlineData(5, 1)]
    public void ARoundReachesOneCallDeeper(int rounds, int left)
    {
        const int StepsOfARound = 4;
        using Context context = PtxCompiler.CreateContext(static _ => { });
        Optimisation.Choose(context, joinedFirst: false);
        ref Transformer steps = ref ContextTransformer(context);
        CallCount before = new(), after = new();
        steps = Transformer.Create(steps.Configuration, [before, .. steps.Transformations.Insert(rounds * StepsOfARound, after)]);
        using var backend = new PTXBackend(context, new CudaCapabilityContext(Hopper.Architecture), Hopper.Architecture, Hopper.Version, null);
        backend.Compile(EntryPointDescription.FromExplicitlyGroupedKernel(ConstantsKernel.Method), default);
        Assert.Equal((30, left), (before.Calls, after.Calls));
    }

    // Calls of this class's methods.
    private sealed class CallCount : UnorderedTransformation
    {
        private int calls;

        public int Calls => calls;

        protected override bool PerformTransformation(Method.Builder builder)
        {
            foreach (BasicBlock block in builder.SourceBlocks)
            {
                foreach (BasicBlock.ValueEntry entry in block)
                {
                    if (entry.Value is MethodCall { Target.HasSource: true } call && call.Target.Source.DeclaringType == typeof(OptimisationTests))
                        Interlocked.Increment(ref calls);
                }
            }
            return false;
        }
    }

    [Fact]
    public void WhatJoinsMethodsFirstIsKnown()
    {
        // Experts of three formats by two kinds of rows, grouped in two tiles, gated in one, two outputs.
        Assert.Equal(11, KernelCatalog.All.Count(k => k.Traits.JoinedFirst));
        Assert.Equal(
            ["ExpertGateUp.Run<StreamedInt4,", "ExpertGateUp.Run<StreamedInt4Zero,", "ExpertGateUp.Run<StreamedNvfp4,", "Gemm.Run<TiledNvfp4,Tile128x128x64,", "Gemm.Run<TiledNvfp4,Tile64x128x64,", "SkinnyGemm.Run<StreamedInt4ZeroByShifts,"],
            KernelCatalog.All.Where(k => k.Traits.JoinedFirst).Select(k => k.Name[..(k.Name.IndexOf(',', k.Name.StartsWith("Gemm.", StringComparison.Ordinal) ? 20 : 0) + 1)]).Distinct().Order(StringComparer.Ordinal));
    }

    [Fact]
    public void AnEmptiedContextCompilesWhatComesAfterAKernelThatCannotBe()
    {
        KernelDefinition hopper = KernelCatalog.All.First(k => k.Traits.ExactArch == "90a"), next = KernelCatalog.All.First(k => k.Traits.RunsOn(PtxTarget.Parse("80")));
        PtxTarget ampere = PtxTarget.Parse("80");
        using Context context = PtxCompiler.CreateContext(static _ => { });
        Assert.Throws<PtxInstructionNotSupportedException>(() => PtxCompiler.Compile(context, hopper, ampere));
        context.ClearCache(ClearCacheMode.Everything);
        Assert.Equal(PtxCompiler.Compile(next, ampere), PtxCompiler.Compile(context, next, ampere));
    }

    [Fact]
    public void ADeviceLoadsTheTextOfAKernelThatWasCompiledAlone()
    {
        TestDevices.Get(TestDevice.Cuda);
        using GpuDevice device = DeviceTests.OpenAnother(TestDevice.Cuda);
        var loader = new KernelLoader(device);
        KernelDefinition[] family = [.. KernelCatalog.All.Where(k => k.Name.StartsWith("SkinnyGemm.Run<StreamedInt4,", StringComparison.Ordinal))];
        Assert.NotEmpty(family);
        Assert.Throws<PtxInstructionNotSupportedException>(() => loader.Load(KernelCatalog.All.First(k => k.Traits.ExactArch is { } arch && arch != device.Target!.Value.Name)));
        foreach (KernelDefinition kernel in family)
        {
            using Kernel loaded = loader.Load(kernel);
            Assert.Equal(PtxCompiler.Compile(kernel, device.Target!.Value), ((PTXCompiledKernel)CompiledKernel(loaded)).PTXAssembly);
        }
    }

    private static string Text(KernelDefinition kernel, bool joinedFirst)
    {
        using Context context = PtxCompiler.CreateContext(static _ => { });
        return PtxCompiler.Compile(context, kernel, Hopper, joinedFirst);
    }

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "<ContextTransformer>k__BackingField")]
    private static extern ref Transformer ContextTransformer(Context context);

    [UnsafeAccessor(UnsafeAccessorKind.Method, Name = "get_CompiledKernel")]
    private static extern CompiledKernel CompiledKernel(Kernel kernel);
}
