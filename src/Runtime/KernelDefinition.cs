using System.Reflection;
using System.Text;
using ILGPU;
using ILGPU.Runtime;

namespace GpuKit.Ilgpu.Runtime;

/// <summary>
/// One kernel instance (a static method with its type arguments closed) and what its compilation needs to know. An
/// instance is created once for the process; devices cache what they load for it under <see cref="Id"/>.
/// </summary>
internal abstract class KernelDefinition
{
    private static int count;

    private protected KernelDefinition(MethodInfo method, KernelTraits traits)
    {
        Method = method;
        Traits = traits;
        Name = DisplayName(method);
        Id = Interlocked.Increment(ref count) - 1;
    }

    /// <summary>Place in every device's cache.</summary>
    public int Id { get; }

    /// <summary>Family and type arguments, e.g. <c>Gemv.Run&lt;Bf16,VectorLoads&gt;</c>.</summary>
    public string Name { get; }

    /// <summary>The device code: a static method that takes one argument struct.</summary>
    public MethodInfo Method { get; }

    /// <summary>Limits and needs.</summary>
    public KernelTraits Traits { get; }

    public override string ToString() => Name;

    private static string DisplayName(MethodInfo method)
    {
        var name = new StringBuilder();
        AppendType(name, method.DeclaringType!);
        name.Append('.').Append(method.Name);
        AppendArguments(name, method.GetGenericArguments());
        return name.ToString();
    }

    private static void AppendType(StringBuilder name, Type type)
    {
        int tick = type.Name.IndexOf('`', StringComparison.Ordinal);
        name.Append(tick < 0 ? type.Name : type.Name.AsSpan(0, tick));
        AppendArguments(name, type.GetGenericArguments());
    }

    // Equal neighbours are named once and counted: compositions that double at every level would have names too long for a file's.
    private static void AppendArguments(StringBuilder name, Type[] arguments)
    {
        for (int i = 0, count; i < arguments.Length; i += count)
        {
            count = arguments.Skip(i).TakeWhile(a => a == arguments[i]).Count();
            name.Append(i == 0 ? '<' : ',');
            AppendType(name, arguments[i]);
            if (count > 1)
                name.Append('*').Append(count);
        }
        if (arguments.Length > 0)
            name.Append('>');
    }
}

/// <summary>A kernel whose argument struct is <typeparamref name="TArgs"/>.</summary>
internal sealed class KernelDefinition<TArgs>(Action<TArgs> kernel, KernelTraits traits) : KernelDefinition(kernel.Method, traits)
    where TArgs : struct
{
    /// <summary>Creates the launcher of a loaded kernel.</summary>
    public static Action<AcceleratorStream, KernelConfig, TArgs> CreateLauncher(Kernel loaded) =>
        loaded.CreateLauncherDelegate<Action<AcceleratorStream, KernelConfig, TArgs>>();
}

/// <summary>What the compiler and the launcher must know of a kernel beyond its code.</summary>
/// <param name="MaxThreads">The most threads a block is launched with (the compiler's register budget follows from it).</param>
/// <param name="MinArch">The lowest architecture (major·10 + minor) that has all its instructions.</param>
/// <param name="ExactArch">The one architecture ("90a") whose instructions it uses, or null.</param>
/// <param name="NeedsWarp32">Whether its threads are mapped to lanes of a 32-wide warp (tensor-core kernels).</param>
/// <param name="Overlaps">
/// Whether it may overlap a neighbour of this kind in a graph: until it has waited (<c>GridDependency</c>) it reads only weights, what is
/// certainly older than the launch before it, and words that say themselves whether they are there (docs/decisions/0008), and it writes no weights.
/// </param>
/// <param name="BlocksPerMultiprocessor">Blocks that must fit on a multiprocessor at once; 0 leaves it to the compiler, which may spill words for a block more (docs/decisions/0003).</param>
/// <param name="ClusterBlocks">Neighbouring blocks along x that run together and share what they load.</param>
/// <param name="HasPlainArguments">Whether its arguments are plain bytes with tensor maps among them, which the driver places instead of ILGPU.</param>
/// <param name="HopperSharedPercent">
/// How much of a multiprocessor's memory should be shared on Hopper, in percent; the rest is cache. Launches run beside each other on a multiprocessor only where they agree about it. −1 leaves it to the driver.
/// </param>
/// <param name="JoinedFirst">
/// Whether its methods are joined before constants decide branches: three times the compilation, and instructions in another order, which decides whether registers are enough where all are needed (docs/decisions/0003).
/// </param>
/// <param name="UsesFloat64">Whether it computes in float64, which is slow on most cards and a mistake where it is not meant.</param>
internal readonly record struct KernelTraits(
    int MaxThreads, int MinArch = 80, string? ExactArch = null, bool NeedsWarp32 = false, bool Overlaps = false, bool UsesFloat64 = false, int BlocksPerMultiprocessor = 0, int ClusterBlocks = 1, bool HasPlainArguments = false,
    int HopperSharedPercent = -1, bool JoinedFirst = false)
{
    /// <summary>Whether a device of this architecture may load the kernel.</summary>
    internal bool RunsOn(Ptx.PtxTarget target) => ExactArch is null ? MinArch <= target.Number : ExactArch == target.Name;
}
