using System.Reflection;
using Xunit.Sdk;
using Xunit.v3;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>Theory data: these arguments, once for every device, the device first.</summary>
[AttributeUsage(AttributeTargets.Method, AllowMultiple = true)]
public sealed class CombinatorialDevicesAttribute(params object[] arguments) : DataAttribute
{
    public override ValueTask<IReadOnlyCollection<ITheoryDataRow>> GetData(MethodInfo testMethod, DisposalTracker disposalTracker) =>
        new([.. TestDevices.Chosen.Select(device => new TheoryDataRow([device, .. arguments]))]);

    public override bool SupportsDiscoveryEnumeration() => true;
}
