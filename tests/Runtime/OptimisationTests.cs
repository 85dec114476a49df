using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Ptx;
using GpuKit.Ilgpu.Tests.Support;
using ILGPU;
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
        a.Floats[3] = Most();
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
        Assert.Equal([float.PositiveInfinity, float.NaN, 0.5f, uint.MaxValue], floats.ToArray());
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
    public void JoiningMethodsFirstLeavesNoFewerInstructions()
    {
        KernelDefinition[] kernels = [.. KernelCatalog.For(Hopper).Where((k, i) => i % 83 == 0)];
        Assert.Equal(9, kernels.Length);
        foreach (KernelDefinition kernel in kernels)
        {
            (int first, int last) = (Lines(kernel, joinedFirst: true), Lines(kernel, joinedFirst: false));
            Assert.True(last <= first + 1, $"{kernel.Name} has {last} lines, and {first} when its methods are joined first.");
        }
    }

    [Fact]
    public void WhatJoinsMethodsFirstIsKnown() =>
        Assert.Equal(
            ["ExpertGateUp.Run<StreamedInt4,", "ExpertGateUp.Run<StreamedInt4Zero,", "ExpertGateUp.Run<StreamedNvfp4,", "Gemm.Run<TiledNvfp4,Tile128x128x64,", "SkinnyGemm.Run<StreamedInt4ZeroByShifts,"],
            KernelCatalog.All.Where(k => k.Traits.JoinedFirst).Select(k => k.Name[..(k.Name.IndexOf(',', k.Name.StartsWith("Gemm.", StringComparison.Ordinal) ? 20 : 0) + 1)]).Distinct().Order(StringComparer.Ordinal));

    [Fact]
    public void AKernelThatCannotBeCompiledLeavesTheContextUsable()
    {
        KernelDefinition hopper = KernelCatalog.All.First(k => k.Traits.ExactArch == "90a"), next = KernelCatalog.All.First(k => k.Traits.MinArch == 80);
        PtxTarget ampere = PtxTarget.Parse("80");
        using Context context = PtxCompiler.CreateContext(static _ => { });
        Assert.Throws<PtxInstructionNotSupportedException>(() => PtxCompiler.Compile(context, hopper, ampere));
        context.ClearCache(ClearCacheMode.Everything);
        Assert.Equal(PtxCompiler.Compile(next, ampere), PtxCompiler.Compile(context, next, ampere));
    }

    [Fact]
    public void AfterAKernelThatTheCardCannotRunTheNextIsLoaded()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        var loader = new KernelLoader(device);
        Assert.Throws<PtxInstructionNotSupportedException>(() => loader.Load(KernelCatalog.All.First(k => k.Traits.ExactArch is { } arch && arch != device.Target!.Value.Name)));
        device.Synchronize();
        using ILGPU.Runtime.Kernel next = loader.Load(ConstantsKernel);
    }

    private static int Lines(KernelDefinition kernel, bool joinedFirst)
    {
        using Context context = PtxCompiler.CreateContext(static _ => { });
        return PtxCompiler.Compile(context, kernel, Hopper, joinedFirst).Count(c => c == '\n');
    }
}
