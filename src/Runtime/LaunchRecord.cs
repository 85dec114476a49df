namespace GpuKit.Ilgpu.Runtime;

/// <summary>One launch as it was made, for benchmarks that time the parts of a sequence.</summary>
/// <param name="Kernel">What ran.</param>
/// <param name="Blocks">Blocks of the grid.</param>
/// <param name="Threads">Threads a block.</param>
/// <param name="DynamicShared">Bytes of dynamic shared memory a block.</param>
/// <param name="Arguments">The argument struct.</param>
/// <param name="Repeat">Makes the same launch again, on the same stream.</param>
internal sealed record LaunchRecord(KernelDefinition Kernel, int Blocks, int Threads, int DynamicShared, object Arguments, Action Repeat);
