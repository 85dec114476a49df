namespace GpuKit.Ilgpu;

/// <summary>A kernel uses a PTX instruction that the architecture it is compiled for does not have.</summary>
public sealed class PtxInstructionNotSupportedException : NotSupportedException
{
    internal PtxInstructionNotSupportedException(string instruction, string required, string architecture)
        : base($"{instruction} needs {required}; the kernel is compiled for {architecture}.")
    {
        Instruction = instruction;
        Architecture = architecture;
    }

    /// <summary>The instruction as class and method, e.g. <c>Wgmma.M64N128</c>.</summary>
    public string Instruction { get; }

    /// <summary>The architecture that lacks it, e.g. <c>sm_80</c>.</summary>
    public string Architecture { get; }
}
