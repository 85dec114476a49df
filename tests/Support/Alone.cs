using Xunit;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>Test classes whose subject is time: they run when no other test does.</summary>
[CollectionDefinition(nameof(Alone), DisableParallelization = true)]
public sealed class Alone;
