using System.Reflection;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Backends.PTX;
using ILGPU.IR;
using ILGPU.IR.Intrinsics;
using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu.Runtime.Ptx;

/// <summary>Makes every method with a <see cref="PtxAttribute"/> known to a context, before it compiles anything.</summary>
internal static class PtxIntrinsics
{
    private const BindingFlags Declared = BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly;

    /// <summary>All instructions of the Kernels assembly.</summary>
    public static readonly IReadOnlyList<MethodInfo> All =
    [
        .. typeof(PtxAttribute).Assembly.GetTypes()
            .SelectMany(t => t.GetMethods(Declared))
            .Where(m => m.IsDefined(typeof(PtxAttribute))),
    ];

    /// <summary>The names of instructions that need a newer PTX version than their architectures, and that version as major·10 + minor.</summary>
    public static readonly IReadOnlyList<(string Mnemonic, int Version)> NewerVersions =
    [
        .. All.Select(m => m.GetCustomAttribute<PtxAttribute>()!).Where(a => a.MinVersion > 0).Select(a => (a.Text[..a.Text.IndexOf(' ', StringComparison.Ordinal)], a.MinVersion)),
    ];

    /// <summary>Registers all instructions.</summary>
    public static void Register(Context context)
    {
        IntrinsicImplementationManager manager = context.GetIntrinsicManager();
        foreach (MethodInfo method in All)
            Register(manager, method);
    }

    /// <summary>Registers one instruction: its text where it exists, the fallback or a named error elsewhere.</summary>
    public static void Register(IntrinsicImplementationManager manager, MethodInfo method)
    {
        var attribute = method.GetCustomAttribute<PtxAttribute>()!;
        (CudaArchitecture from, CudaArchitecture? before) = Range(attribute);
        manager.RegisterMethod(method, Handler(nameof(PtxEmitter.Emit), from, before));
        manager.RegisterMethod(method, Otherwise(method, attribute, null, from));
        if (before is { } end)
            manager.RegisterMethod(method, Otherwise(method, attribute, end, null));
    }

    private static (CudaArchitecture From, CudaArchitecture? Before) Range(PtxAttribute attribute)
    {
        int number = attribute.ExactArch is { } exact ? int.Parse(exact.TrimEnd('a'), System.Globalization.CultureInfo.InvariantCulture) : attribute.MinArch;
        var from = new CudaArchitecture(number / 10, number % 10);
        return (from, attribute.ExactArch is null ? null : new CudaArchitecture(from.Major, from.Minor + 1));
    }

    private static PTXIntrinsic Otherwise(MethodInfo method, PtxAttribute attribute, CudaArchitecture? from, CudaArchitecture? before)
    {
        if (attribute.OmittedElsewhere)
            return Handler(nameof(PtxEmitter.Omit), from, before);
        if (attribute.Fallback is null)
            return Handler(nameof(PtxEmitter.Reject), from, before);
        MethodInfo fallback = method.DeclaringType!.GetMethod(attribute.Fallback, Declared)
            ?? throw new InvalidOperationException($"{method.DeclaringType.Name}.{method.Name} names a fallback '{attribute.Fallback}' that does not exist.");
        return new PTXIntrinsic(fallback, IntrinsicImplementationMode.Redirect, from, before);
    }

    private static PTXIntrinsic Handler(string name, CudaArchitecture? from, CudaArchitecture? before) =>
        new(typeof(PtxEmitter).GetMethod(name)!, IntrinsicImplementationMode.GenerateCode, from, before);
}
