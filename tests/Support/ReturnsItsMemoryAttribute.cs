using System.Reflection;
using GpuKit.Ilgpu.Tests.Support;
using Xunit.Sdk;
using Xunit.v3;

[assembly: ReturnsItsMemory]
[assembly: AssemblyFixture(typeof(AllMemoryReturned))]

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>
/// Fails every test that leaves device memory behind: as strict as comparing ledgers, and tests may run side by side on one device.
/// A class that disposes what its tests share is looked at when all tests have run.
/// </summary>
[AttributeUsage(AttributeTargets.Assembly)]
public sealed class ReturnsItsMemoryAttribute : BeforeAfterTestAttribute
{
    public override void After(MethodInfo methodUnderTest, IXunitTest test)
    {
        Type type = test.TestCase.TestClass.Class;
        if (!typeof(IDisposable).IsAssignableFrom(type) && !typeof(IAsyncDisposable).IsAssignableFrom(type))
            AllMemoryReturned.Check(owner => owner == test.UniqueID);
        AllMemoryReturned.CheckScratch();
    }
}

/// <summary>Looks for memory of tests when all have run.</summary>
public sealed class AllMemoryReturned : IDisposable
{
    public void Dispose() => Check(_ => true);

    internal static void Check(Predicate<string> owner)
    {
        string[] held = [.. TestDevices.Opened.SelectMany(device => GuardingAllocator.Of(device).Held(owner))];
        if (held.Length > 0)
            throw new XunitException($"{held.Length} buffers were not disposed: {string.Join(", ", held)}.");
    }

    internal static void CheckScratch()
    {
        string[] damaged = [.. TestDevices.Opened.SelectMany(device => GuardingAllocator.Of(device).DamagedScratch(device))];
        if (damaged.Length > 0)
            throw new XunitException(string.Join(" ", damaged));
    }
}
