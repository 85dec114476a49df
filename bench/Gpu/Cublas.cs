using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Bench;

/// <summary>
/// cuBLAS as the opponent, when its library is on the machine (on the loader's path, or named by GPUKIT_CUBLAS). Only the
/// bench knows it; the library needs nothing but the driver.
/// </summary>
internal sealed unsafe class Cublas : IDisposable
{
    private const int Transpose = 1, NoTranspose = 0, Bf16 = 14, Compute32F = 68, DefaultAlgorithm = -1;
    private const long WorkspaceBytes = 64 << 20;

    private readonly nint library;
    private readonly nint handle;
    private readonly DeviceBuffer<byte> workspace;

    private Cublas(nint library, GpuStream stream)
    {
        this.library = library;
        stream.Device.Bind();
        Check(((delegate* unmanaged<out nint, int>)Entry("cublasCreate_v2"))(out handle), "cublasCreate");
        Check(((delegate* unmanaged<nint, nint, int>)Entry("cublasSetStream_v2"))(handle, stream.Handle), "cublasSetStream");
        workspace = stream.Device.Allocate<byte>(WorkspaceBytes);
        // A workspace of its own: cuBLAS cannot allocate while its calls are recorded.
        Check(((delegate* unmanaged<nint, nint, nuint, int>)Entry("cublasSetWorkspace_v2"))(handle, (nint)Shape.Address(workspace.View), (nuint)WorkspaceBytes), "cublasSetWorkspace");
    }

    /// <summary>Opens the library, or returns null when there is none.</summary>
    public static Cublas? TryOpen(GpuStream stream)
    {
        string?[] names = [Environment.GetEnvironmentVariable("GPUKIT_CUBLAS"), "libcublas.so.13", "libcublas.so.12", "libcublas.so", "cublas64_13.dll", "cublas64_12.dll"];
        foreach (string? name in names)
            if (name is not null && NativeLibrary.TryLoad(name, out nint library))
                return new Cublas(library, stream);
        return null;
    }

    /// <summary>y[m, n] = x[m, k] · W[n, k]ᵀ, all BF16, float32 accumulation.</summary>
    public void Multiply(DeviceBuffer<byte> w, DeviceBuffer<BFloat16> x, DeviceBuffer<BFloat16> y, int m, int n, int k)
    {
        float one = 1, zero = 0;
        // Column-major: Wᵀ is a K × N matrix with leading dimension K.
        int status = ((delegate* unmanaged<nint, int, int, int, int, int, float*, nint, int, int, nint, int, int, float*, nint, int, int, int, int, int>)Entry("cublasGemmEx"))(
            handle, Transpose, NoTranspose, n, m, k, &one, (nint)Shape.Address(w.View), Bf16, k, (nint)Shape.Address(x.View), Bf16, k, &zero, (nint)Shape.Address(y.View), Bf16, n, Compute32F, DefaultAlgorithm);
        Check(status, "cublasGemmEx");
    }

    public void Dispose()
    {
        _ = ((delegate* unmanaged<nint, int>)Entry("cublasDestroy_v2"))(handle);
        workspace.Dispose();
    }

    private nint Entry(string name) => NativeLibrary.GetExport(library, name);

    private static void Check(int status, string call)
    {
        if (status != 0)
            throw new InvalidOperationException($"{call} answered {status}.");
    }
}
