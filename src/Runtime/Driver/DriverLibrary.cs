using System.Reflection;
using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Runtime.Driver;

/// <summary>
/// Finds the CUDA driver: <c>nvcuda.dll</c> on Windows, <c>libcuda.so.1</c> on Linux. ILGPU asks the loader for plain
/// <c>libcuda.so</c>, which only development packages install, so its imports are resolved here too.
/// </summary>
internal static class DriverLibrary
{
    public const string Name = "cuda";

    private static readonly Lazy<nint> Handle = new(Load);

    static DriverLibrary()
    {
        NativeLibrary.SetDllImportResolver(typeof(DriverLibrary).Assembly, Resolve);
        try
        {
            NativeLibrary.SetDllImportResolver(typeof(ILGPU.Context).Assembly, Resolve);
        }
        catch (InvalidOperationException)
        {
            // The application has installed its own resolver for ILGPU; it decides then.
        }
    }

    /// <summary>Whether the driver's library is on this machine. Also installs the resolvers: call before ILGPU's first use.</summary>
    public static bool IsPresent => Handle.Value != 0;

    private static nint Resolve(string library, Assembly assembly, DllImportSearchPath? path) =>
        library is Name or "nvcuda" ? Handle.Value : 0;

    private static nint Load()
    {
        string[] names = OperatingSystem.IsWindows() ? ["nvcuda.dll"] : ["libcuda.so.1", "libcuda.so"];
        foreach (string name in names)
            if (NativeLibrary.TryLoad(name, out nint handle))
                return handle;
        return 0;
    }
}
