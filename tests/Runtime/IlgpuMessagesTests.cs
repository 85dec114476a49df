using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Runtime;

public sealed class IlgpuMessagesTests
{
    // False after an update of ILGPU: emulated kernels are slower then, and nothing else is wrong.
    [Fact]
    public void TheMessagesOfThisIlgpuAreKept()
    {
        Assert.True(IlgpuMessages.Keep());
        Assert.True(IlgpuMessages.Keep());
    }

    [Fact]
    public void AnErrorOfIlgpuStillHasItsText()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cpu);
        Assert.False(device.IsCuda);
        // Outside of a kernel there is no group.
        Assert.Contains("can only be called from an ILGPU kernel", Assert.ThrowsAny<Exception>(ILGPU.Group.Barrier).ToString(), StringComparison.Ordinal);
    }
}
