using GpuKit.Ilgpu.Runtime.Driver;
using GpuKit.Ilgpu.Runtime.Ptx;
using ILGPU;
using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu;

/// <summary>One card of the machine, as the driver describes it.</summary>
/// <param name="Ordinal">Number to open it with.</param>
/// <param name="Name">Product name.</param>
/// <param name="ComputeCapability">9.0 is Hopper.</param>
/// <param name="MemoryBytes">Device memory.</param>
/// <param name="MultiprocessorCount">Streaming multiprocessors.</param>
public sealed record CudaDeviceInfo(int Ordinal, string Name, Version ComputeCapability, long MemoryBytes, int MultiprocessorCount);

/// <summary>What devices this machine has.</summary>
public static class DeviceCatalog
{
    // One enumeration a process: cards do not come and go, and each costs a context.
    private static readonly Lazy<(IReadOnlyList<CudaDeviceInfo> Cards, string? Unavailable)> Found = new(Enumerate);

    /// <summary>The NVIDIA cards that the driver sees; empty without a driver.</summary>
    public static IReadOnlyList<CudaDeviceInfo> CudaDevices => Found.Value.Cards;

    /// <summary>The CUDA version that the driver supports, e.g. 13.0, or null without a driver.</summary>
    public static Version? DriverVersion =>
        DriverLibrary.IsPresent && CudaDriver.cuDriverGetVersion(out int version) == CudaError.CUDA_SUCCESS
            ? new Version(version / 1000, version % 1000 / 10)
            : null;

    /// <summary>Why CUDA cannot be used here, in a few words, or null when it can.</summary>
    public static string? CudaUnavailable() => Found.Value.Unavailable;

    /// <summary>
    /// Why <see cref="DeviceKind.Auto"/> takes the CPU and not this card, or null when it takes the card. A card that is too
    /// old for the kernels counts as none; a number that no card has is left to <see cref="GpuDevice.Open"/>, which refuses it.
    /// </summary>
    /// <param name="ordinal">Which card, counted from 0.</param>
    public static string? AutoTakesCpu(int ordinal = 0) => CudaUnavailable() ?? TooOld(CudaDevices, ordinal);

    internal static string? TooOld(IReadOnlyList<CudaDeviceInfo> cards, int ordinal) =>
        ordinal < cards.Count && cards[ordinal] is { } card && card.ComputeCapability < PtxTarget.Least
            ? $"{card.Name} has compute capability {card.ComputeCapability} and the kernels need {PtxTarget.Least}"
            : null;

    private static (IReadOnlyList<CudaDeviceInfo>, string?) Enumerate()
    {
        if (!DriverLibrary.IsPresent)
            return ([], "the NVIDIA driver is not installed");
        try
        {
            using Context context = Context.Create(static builder => builder.Cuda());
            var cards = new List<CudaDeviceInfo>();
            foreach (CudaDevice card in context.GetCudaDevices())
            {
                CudaArchitecture architecture = card.Architecture!.Value;
                cards.Add(new CudaDeviceInfo(cards.Count, card.Name, new Version(architecture.Major, architecture.Minor), card.MemorySize, card.NumMultiprocessors));
            }
            return cards.Count == 0 ? (cards, "the driver sees no card") : (cards, null);
        }
        catch (Exception e) when (e is CudaException or NotSupportedException or DllNotFoundException or EntryPointNotFoundException)
        {
            return ([], $"the driver does not answer ({e.Message})");
        }
    }
}
