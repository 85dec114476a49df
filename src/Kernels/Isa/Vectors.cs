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

/// <summary>Two float32 registers: a number of a lane's upper row (g) and one of its lower row (g + 8).</summary>
internal struct F2
{
    public float X, Y;
}

/// <summary>Four float32 registers: an m16n8 accumulator of one lane.</summary>
internal struct F4
{
    public float X, Y, Z, W;
}
