using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Ptx;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Every kernel of the library compiled for every architecture it declares; needs no card.</summary>
public sealed class PtxGateTests
{
    public static TheoryData<string> Targets => [.. PtxTarget.All.Select(t => t.ToString())];

    [Theory]
    [MemberData(nameof(Targets))]
    public void NoKernelUsesLocalMemoryOrUndeclaredFloat64(string name)
    {
        PtxTarget target = PtxTarget.Parse(name);
        var faults = new List<string>();
        int count = 0;
        foreach ((KernelDefinition kernel, string text) in PtxCompiler.CompileAll(KernelCatalog.For(target), target))
        {
            count++;
            if (PtxText.UsesLocalMemory(text))
                faults.Add($"{kernel.Name} uses local memory");
            if (PtxText.UsesDouble(text) != kernel.Traits.UsesFloat64)
                faults.Add($"{kernel.Name} {(kernel.Traits.UsesFloat64 ? "does not compute in float64, as it says" : "computes in float64")}");
            if (!text.Contains($".target {name}\n", StringComparison.Ordinal))
                faults.Add($"{kernel.Name} is not for {name}");
        }
        Assert.NotEqual(0, count);
        Assert.True(faults.Count == 0, string.Join('\n', faults));
    }

    [Fact]
    public void TheSameKernelHasTheSameTextInEveryContext()
    {
        foreach (KernelDefinition kernel in KernelCatalog.For(PtxTarget.Sm80).Take(3))
            Assert.Equal(PtxCompiler.Compile(kernel, PtxTarget.Sm80), PtxCompiler.Compile(kernel, PtxTarget.Sm80));
    }
}
