using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu.Runtime.Ptx;

/// <summary>
/// One architecture that kernels are compiled for: the name after <c>sm_</c>, ILGPU's view of it, and the lowest PTX
/// version that has everything the project uses there, but for a few instructions that name a newer one (<see cref="Kernels.Isa.PtxAttribute.MinVersion"/>). A fixed version (not the driver's newest) keeps a kernel's text
/// the same on every driver, so that golden texts and the driver's on-disk JIT cache hold.
/// </summary>
internal readonly record struct PtxTarget(string Name, CudaArchitecture Architecture, CudaInstructionSet Version)
{
    /// <summary>Ampere data centre (A100).</summary>
    public static readonly PtxTarget Sm80 = new("80", CudaArchitecture.SM_80, CudaInstructionSet.ISA_74);

    /// <summary>Every architecture that the project's kernels are checked for, oldest first.</summary>
    public static readonly IReadOnlyList<PtxTarget> All =
    [
        Sm80,
        new("86", CudaArchitecture.SM_86, CudaInstructionSet.ISA_74),
        new("89", CudaArchitecture.SM_89, CudaInstructionSet.ISA_81),
        new("90a", CudaArchitecture.SM_90, CudaInstructionSet.ISA_81),
        new("100a", CudaArchitecture.SM_100, CudaInstructionSet.ISA_86),
        new("120a", CudaArchitecture.SM_120, CudaInstructionSet.ISA_87),
    ];

    /// <summary>The compute capability that every kernel needs (Ampere).</summary>
    public static readonly Version Least = new(Sm80.Architecture.Major, Sm80.Architecture.Minor);

    /// <summary>Major·10 + minor, the form of <see cref="Kernels.Isa.PtxAttribute.MinArch"/>.</summary>
    public int Number => (Architecture.Major * 10) + Architecture.Minor;

    /// <summary>Finds a target by <c>sm_90a</c> or <c>90a</c>.</summary>
    public static PtxTarget Parse(string name)
    {
        string bare = name.StartsWith("sm_", StringComparison.Ordinal) ? name[3..] : name;
        foreach (PtxTarget target in All)
            if (target.Name == bare)
                return target;
        throw new ArgumentException(
            $"'{name}' is not an architecture of this build; known are {string.Join(", ", All.Select(t => "sm_" + t.Name))}.",
            nameof(name));
    }

    /// <summary>
    /// The target for a device. Architecture-specific names (the <c>a</c>) load on exactly their own capability, so a
    /// device between two of them gets the plain name of the family below it.
    /// </summary>
    public static PtxTarget ForDevice(CudaArchitecture device)
    {
        foreach (PtxTarget target in All)
            if (target.Architecture == device)
                return target;
        if (device < CudaArchitecture.SM_80)
            throw new GpuException(GpuFault.NotSupported,
                $"The device has compute capability {device.Major}.{device.Minor}; the kernels need {Least} (Ampere) or newer.");
        PtxTarget below = All.Last(t => t.Architecture < device);
        return below with { Name = below.Name.TrimEnd('a'), Architecture = device };
    }

    public override string ToString() => "sm_" + Name;
}
