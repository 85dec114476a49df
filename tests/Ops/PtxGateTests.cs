using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Ptx;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Every kernel of the library compiled for every architecture it declares; needs no card.</summary>
public sealed class PtxGateTests
{
    private const int KernelsOfAContext = 40;

    [Fact]
    public void NoKernelUsesLocalMemoryOrUndeclaredFloat64()
    {
        // Optimising what a kernel's IL says is most of the work, and a context does that once for all architectures.
        KernelDefinition[][] parts = [.. KernelCatalog.All.Chunk(KernelsOfAContext)];
        var texts = new (int Count, List<string> Faults)[parts.Length];
        Parallel.For(0, parts.Length, new ParallelOptions { MaxDegreeOfParallelism = Math.Clamp(Environment.ProcessorCount, 2, 8) }, part => texts[part] = Compile(parts[part]));

        string[] faults = [.. texts.SelectMany(t => t.Faults)];
        Assert.True(faults.Length == 0, string.Join('\n', faults));
        Assert.Equal(PtxTarget.All.Sum(t => KernelCatalog.For(t).Count()), texts.Sum(t => t.Count));
        Assert.All(KernelCatalog.All, kernel => Assert.Contains(PtxTarget.All, kernel.Traits.RunsOn));
    }

    private static (int Count, List<string> Faults) Compile(IEnumerable<KernelDefinition> kernels)
    {
        var faults = new List<string>();
        int count = 0;
        foreach ((KernelDefinition kernel, PtxTarget target, string text) in PtxCompiler.CompileAll(kernels, PtxTarget.All))
        {
            count++;
            if (PtxText.UsesLocalMemory(text))
                faults.Add($"{kernel.Name} uses local memory on {target}");
            if (PtxText.UsesDouble(text) != kernel.Traits.UsesFloat64)
                faults.Add($"{kernel.Name} {(kernel.Traits.UsesFloat64 ? "does not compute in float64, as it says" : "computes in float64")} on {target}");
            if (!text.Contains($".target {target}\n", StringComparison.Ordinal))
                faults.Add($"{kernel.Name} is not for {target}");
        }
        return (count, faults);
    }

    [Fact]
    public void TheSameKernelHasTheSameTextInEveryContext()
    {
        // Among them a kernel whose text differs between architectures: the table or the card's own conversion of FP8.
        KernelDefinition[] kernels = [.. KernelCatalog.All.Where((k, i) => i % 97 == 0 || k.Name.StartsWith("Quantize.", StringComparison.Ordinal)).Take(8)];
        foreach ((KernelDefinition kernel, PtxTarget target, string text) in PtxCompiler.CompileAll(kernels, PtxTarget.All))
            Assert.Equal(PtxCompiler.Compile(kernel, target), text);
    }

    [Fact]
    public void TheTextOfAKernelDoesNotDependOnThoseBeforeIt()
    {
        // One target: what its siblings have left is what would be taken over.
        PtxTarget target = PtxTarget.Parse("90a");
        KernelDefinition[] family = [.. KernelCatalog.For(target).Where(k => k.Name.StartsWith("HopperSkinnyGemm.Run<StreamedInt4,", StringComparison.Ordinal))];
        Assert.Equal(4, family.Length);
        string[] alone = [.. family.Select(k => PtxCompiler.Compile(k, target))];
        Assert.Equal(alone, PtxCompiler.CompileAll(family, [target]).Select(text => text.Text));
        // It would, in a context that is not emptied.
        using ILGPU.Context context = PtxCompiler.CreateContext(static _ => { });
        Assert.NotEqual(alone, family.Select(k => PtxCompiler.Compile(context, k, target)));
    }
}
