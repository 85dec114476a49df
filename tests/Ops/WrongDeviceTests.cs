using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Every public operator, with each of its tensors on another device in turn, and on a stream of another device.</summary>
public sealed class WrongDeviceTests
{
    public static TheoryData<TestDevice> Devices => ModelDevices.All;

    [Theory]
    [MemberData(nameof(Devices))]
    public void ATensorOrAStreamOfAnotherDeviceIsRefused(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        using GpuDevice other = TestDevices.Open(TestDevice.Cpu);
        foreach (SmallCase small in OperatorCases.All())
        {
            int count;
            using (var tensors = new CaseTensors(device))
            {
                Action<GpuStream> launch = small.Prepare(tensors);
                count = tensors.Count;
                Refused(() => launch(other.DefaultStream), $"{small.Name} on a stream of another device");
            }
            for (int i = 0; i < count; i++)
            {
                using var tensors = new CaseTensors(device, other, i);
                Action<GpuStream> launch = small.Prepare(tensors);
                Refused(() => launch(device.DefaultStream), $"{small.Name} with tensor {i} on another device");
            }
        }
        Assert.Equal(0, other.Log.Count);
    }

    private static void Refused(Action call, string what)
    {
        Exception? thrown = Record.Exception(call);
        Assert.True(thrown is ArgumentException, $"{what} gives {thrown?.ToString() ?? "no exception"}.");
    }
}
