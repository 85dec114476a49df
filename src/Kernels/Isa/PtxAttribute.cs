namespace GpuKit.Ilgpu.Kernels.Isa;

/// <summary>
/// Declares a method as one PTX instruction (or a short block of them). The attribute holds the text that the CUDA
/// compiler emits for a call; the method's C# body is never compiled for CUDA: it is the emulation that runs on the CPU
/// accelerator. The method must also carry <see cref="ILGPU.IR.Intrinsics.IntrinsicImplementationAttribute"/>.
/// </summary>
/// <remarks>
/// Placeholders in the text:
/// <list type="table">
/// <item><term><c>%d</c></term><description>the result; a struct is a <c>{…}</c> vector of its fields</description></item>
/// <item><term><c>%N</c></term><description>argument N (0..9) in a register; a struct is a <c>{…}</c> vector</description></item>
/// <item><term><c>%N.M</c></term><description>field M of the struct argument N; <c>%d.M</c> likewise</description></item>
/// <item><term><c>%gN</c> / <c>%sN</c></term><description>argument N, a <c>ref</c>, as a global / shared address</description></item>
/// <item><term><c>%cN</c></term><description>argument N, which must be a compile-time constant, as an immediate</description></item>
/// <item><term><c>%=N</c></term><description>argument N is copied into the result first (an in/out operand)</description></item>
/// <item><term><c>%%</c></term><description>a percent sign</description></item>
/// <item><term><c>[[64, acc(#)]]</c></term><description>repeated 64 times with commas between; with a colon instead, without. (#) counts from 0, (4#+1) is four times that plus 1</description></item>
/// <item><term><c>KERNEL_ARGUMENTS</c></term><description>the kernel's parameter, for taking its address</description></item>
/// </list>
/// Text with temporaries or labels goes in braces, which scope them.
/// </remarks>
/// <param name="text">The PTX text with placeholders.</param>
[AttributeUsage(AttributeTargets.Method)]
internal sealed class PtxAttribute(string text) : Attribute
{
    /// <summary>The PTX text with placeholders.</summary>
    public string Text => text;

    /// <summary>The lowest compute capability that has the instruction, as major·10 + minor (80 is sm_80).</summary>
    public int MinArch { get; init; } = 80;

    /// <summary>The lowest PTX version that has the instruction, as major·10 + minor, where it is newer than its architectures' own; else 0. The text of such an instruction begins with its name.</summary>
    public int MinVersion { get; init; }

    /// <summary>
    /// The one architecture that has the instruction, with its suffix ("90a", "120a"), or null. Architecture-specific
    /// instructions exist neither before nor after their architecture, so a lower bound would be wrong for them.
    /// </summary>
    public string? ExactArch { get; init; }

    /// <summary>
    /// Name of a method of the same class with the same signature that is compiled instead on architectures that lack
    /// the instruction, or null: then compiling a kernel that uses it fails with an error that names both.
    /// </summary>
    public string? Fallback { get; init; }

    /// <summary>Whether the call is nothing at all on architectures that lack the instruction; for methods without a result.</summary>
    public bool OmittedElsewhere { get; init; }
}
