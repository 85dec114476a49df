namespace GpuKit.Ilgpu.Kernels.Isa;

// Register tuples: PTX vector operands ({r0, r1, …}) as C# structs. Fields, not arrays: ILGPU keeps a struct's fields in
// registers, while an array indexed by a variable becomes local memory.

/// <summary>Two 32-bit registers.</summary>
internal struct U2
{
    public uint X, Y;
}

/// <summary>Four 32-bit registers: 16 bytes, the widest access to global memory.</summary>
internal struct U4
{
    public uint X, Y, Z, W;
}

/// <summary>Four float32 registers: an m16n8 accumulator of one lane.</summary>
internal struct F4
{
    public float X, Y, Z, W;
}
