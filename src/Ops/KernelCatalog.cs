using System.Reflection;
using GpuKit.Ilgpu.Runtime;

namespace GpuKit.Ilgpu;

/// <summary>
/// Every kernel instance of the library: what <c>gpukit ptx</c> writes and the PTX gate checks. Operators hold their
/// kernels in static fields; a field that is declared is listed.
/// </summary>
internal static class KernelCatalog
{
    private static readonly Lazy<IReadOnlyList<KernelDefinition>> Found = new(Collect);

    /// <summary>All kernels, ordered by name.</summary>
    public static IReadOnlyList<KernelDefinition> All => Found.Value;

    /// <summary>The kernels that a device of this architecture may load.</summary>
    public static IEnumerable<KernelDefinition> For(Runtime.Ptx.PtxTarget target) => All.Where(k => k.Traits.RunsOn(target));

    private static List<KernelDefinition> Collect()
    {
        const BindingFlags Fields = BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly;
        var kernels = new List<KernelDefinition>();
        foreach (FieldInfo field in typeof(KernelCatalog).Assembly.GetTypes().Where(t => !t.ContainsGenericParameters).SelectMany(t => t.GetFields(Fields)))
        {
            if (typeof(KernelDefinition).IsAssignableFrom(field.FieldType))
                kernels.Add((KernelDefinition)field.GetValue(null)!);
            else if (typeof(IEnumerable<KernelDefinition>).IsAssignableFrom(field.FieldType))
                kernels.AddRange((IEnumerable<KernelDefinition>)field.GetValue(null)!);
        }
        return [.. kernels.OrderBy(k => k.Name, StringComparer.Ordinal)];
    }
}
