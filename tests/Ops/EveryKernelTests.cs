using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Ptx;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Small runs of every kernel: what the sanitizer watches on a card (eng/sanitize), and a list that is checked to be complete without one.</summary>
public sealed class EveryKernelTests
{
    // eng/sanitize --kernel: cases without such a kernel are not launched, and theirs not compiled.
    private static readonly string Part = Environment.GetEnvironmentVariable("GPUKIT_TEST_KERNEL") ?? "";
    private static readonly bool NamesCases = Environment.GetEnvironmentVariable("GPUKIT_TEST_NAMES_CASES") == "1";

    // Bytes a thread; drivers differ a little.
    private static readonly (string Kernels, int Bytes)[] SpillsOnHopper =
    [
        ("ExpertDown.Run<StreamedInt4", 160), ("ExpertDown.Run<StreamedNvfp4", 64), ("TileRows.Run<StreamedInt4", 160), ("TileRows.Run<StreamedNvfp4", 64), ("FlashAttention.Run", 80),
    ];

    [Fact]
    public void EveryKernelHasASmallCase()
    {
        // Threads enough for every kernel; nothing is launched.
        using GpuDevice device = TestDevices.Open(TestDevice.CpuWarp32, warps: 16);
        HashSet<string> launched = Run(device, launches: false);
        Assert.Equal([], KernelCatalog.For(PtxTarget.Parse("90a")).Select(k => k.Name).Except(launched));
    }

    [Fact]
    public void EveryKernelRunsOnACard()
    {
        GpuDevice shared = TestDevices.Get(TestDevice.Cuda);
        // One of its own: a filter sees all launches of a device.
        using GpuDevice device = TestDevices.Open(TestDevice.Cuda);
        var spilling = new Dictionary<string, int>();
        HashSet<string> launched = Run(device, launches: true, spilling);
        // A part that no kernel has would leave all of them out.
        Assert.Contains(launched, HasPart);
        // What is known to have local memory on Hopper: parts of four-bit layers of few tokens with all registers in use, and attention for other cards; nothing of Linear and GroupedLinear. A sanitizer adds its own.
        if (device.Target is { Number: 90 } && !NamesCases)
            Assert.Equal([], spilling.Where(s => !SpillsOnHopper.Any(known => s.Key.StartsWith(known.Kernels, StringComparison.Ordinal) && s.Value <= known.Bytes)));
        IEnumerable<KernelDefinition> tooLarge = GemmKernels.All.Where(k => !Fits(k, device));
        Assert.Equal([], KernelCatalog.For(shared.Target!.Value).Except(tooLarge).Select(k => k.Name).Except(launched));
    }

    private static bool HasPart(string name) => name.Contains(Part, StringComparison.OrdinalIgnoreCase);

    private static bool Fits(KernelDefinition kernel, GpuDevice device) =>
        Enum.GetValues<GemmTile>().SelectMany(tile => WeightFormats.All.Select(format => (Format: format, Tile: tile)))
            .Where(t => GemmKernels.Exists(t.Format, t.Tile) && !GemmKernels.Info(t.Format, t.Tile).Fits(LinearDevice.Of(device)))
            .All(t => Enum.GetValues<GemmEpilogue>().All(e => !GemmKernels.Exists(t.Format, t.Tile, e) || kernel != GemmKernels.Get(t.Format, t.Tile, e)));

    private static HashSet<string> Run(GpuDevice device, bool launches, Dictionary<string, int>? spilling = null)
    {
        var names = new HashSet<string>();
        foreach (SmallCase small in OperatorCases.All().Concat(KernelCases.All(device)))
        {
            using var tensors = new CaseTensors(device);
            Action<GpuStream> run = small.Prepare(tensors);
            // A case runs as a whole or not at all: its kernels read what others of it have written.
            HashSet<string> own = Names(device, run, launches: false);
            if (launches && own.Any(HasPart))
            {
                // The sanitizer calls every kernel by the name of ILGPU's entry point: what it reports belongs to the case above.
                if (NamesCases)
                    Console.Error.WriteLine($"case {small.Name}: {string.Join(' ', own)}");
                Names(device, run, launches: true, spilling);
            }
            names.UnionWith(own);
            try
            {
                device.Synchronize();
            }
            catch (GpuException e)
            {
                throw new InvalidOperationException($"{small.Name}: {e.Message}", e);
            }
        }
        return names;
    }

    private static HashSet<string> Names(GpuDevice device, Action<GpuStream> run, bool launches, Dictionary<string, int>? spilling = null)
    {
        var names = new HashSet<string>();
        var kernels = new List<KernelDefinition>();
        device.LaunchFilter = kernel =>
        {
            if (names.Add(kernel.Name))
                kernels.Add(kernel);
            return launches;
        };
        run(device.DefaultStream);
        foreach (KernelDefinition kernel in kernels)
        {
            if (spilling is not null && device.Kernels.ResourcesOfLoaded(kernel) is { LocalBytes: > 0 and int bytes })
                spilling[kernel.Name] = bytes;
        }
        return names;
    }
}
