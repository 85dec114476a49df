using System.Collections.Immutable;
using System.Runtime.CompilerServices;
using ILGPU;
using ILGPU.IR.Transformations;

namespace GpuKit.Ilgpu.Runtime.Ptx;

/// <summary>
/// The steps by which ILGPU optimises a kernel: its own of O1, with others before them. Most branches of a kernel are decided by its type arguments; ILGPU joins its methods first, and then drops nearly all of what came of it.
/// </summary>
internal static class Optimisation
{
    // The first makes one block of a method that returns a constant, each further one reaches a call deeper. Only tiles of 128 rows (GemmWarp) have a longer chain; its end is decided when methods have been joined. More rounds change their 18 texts and no other; not timed.
    private const int Rounds = 5;

    private static readonly ConditionalWeakTable<Context, Steps> Known = [];

    private sealed record Steps(Transformer Early, Transformer Late);

    /// <summary>Chooses the steps for what a context compiles next. One thread at a time may use the context.</summary>
    /// <param name="context">A context of O1.</param>
    /// <param name="joinedFirst">Whether methods are joined before constants decide branches: <see cref="KernelTraits.JoinedFirst"/>.</param>
    public static void Choose(Context context, bool joinedFirst)
    {
        Steps steps = Known.GetValue(context, Extend);
        ContextTransformer(context) = joinedFirst ? steps.Late : steps.Early;
    }

    private static Steps Extend(Context context)
    {
        Transformer own = ContextTransformer(context);
        int lowering = own.Transformations.IndexOf(own.Transformations.Single(step => step is LowerStructures));
        ImmutableArray<Transformation> late = own.Transformations.InsertRange(lowering, new DeadBranches(), new DeadCodeElimination());
        IEnumerable<Transformation> early = Enumerable.Range(0, Rounds)
            .SelectMany(_ => new Transformation[] { new ConstantCalls(), new UnreachableCodeElimination(), new DeadCodeElimination(), new SimplifyControlFlow() });
        return new Steps(Transformer.Create(own.Configuration, [.. early, .. late]), Transformer.Create(own.Configuration, late));
    }

    // ILGPU lets nobody choose the steps; what its property returns is read when a kernel is compiled.
    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "<ContextTransformer>k__BackingField")]
    private static extern ref Transformer ContextTransformer(Context context);
}
