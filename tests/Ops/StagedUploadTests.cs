using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>Bytes through staging buffers: all of them, each at its place, and nothing left behind.</summary>
[Collection(ModelDevices.Collection)]
public sealed class StagedUploadTests(ModelDevices devices)
{
    private const int Staging = 1024;

    // Around one buffer, around all three of them, and more than a core's part.
    private static readonly int[] Sizes = [0, 1, 2, 63, 64, 65, Staging - 1, Staging, Staging + 1, (3 * Staging) - 1, 3 * Staging, (3 * Staging) + 1, (10 * Staging) + 7];

    public static TheoryData<TestDevice, int> Cases => ModelDevices.With<int>([1, 64, 100, Staging, 1 << 20]);

    [Theory]
    [MemberData(nameof(Cases))]
    public void Every_byte_comes_to_its_place(TestDevice device, int staging)
    {
        GpuDevice open = devices.Open(device);
        byte[] expected = Random(3 << 20, 1);
        using DeviceBuffer<byte> target = open.Allocate<byte>(expected.Length);
        target.Fill(open.DefaultStream, 0xEE);
        open.DefaultStream.Synchronize();
        byte[] kept = [.. Enumerable.Repeat((byte)0xEE, expected.Length)];
        using (var upload = new StagedUpload(open, staging, TestContext.Current.CancellationToken))
        {
            Assert.InRange(open.Ledger.PinnedBytes, 3 * staging, 3 * (staging + 64));
            int at = 3;
            // A source is used again at once: what is on its way must not be touched by that.
            foreach (int size in (int[])[.. Sizes, staging < 64 ? 4096 : 2 << 20, .. Sizes.Reverse()])
            {
                byte[] source = expected[at..(at + size)];
                Assert.True(upload.Copy<byte>(target, source, at) < 0);
                Array.Clear(source);
                expected.AsSpan(at, size).CopyTo(kept.AsSpan(at));
                at += size + 1;
            }
            upload.Complete();
            Assert.Equal(kept, target.ToArray(open.DefaultStream));
        }
        Assert.Equal(0, open.Ledger.PinnedBytes);
    }

    [Theory]
    [MemberData(nameof(ModelDevices.All), MemberType = typeof(ModelDevices))]
    public void Elements_and_bytes_share_a_buffer(TestDevice device)
    {
        GpuDevice open = devices.Open(device);
        using var upload = new StagedUpload(open, 128, TestContext.Current.CancellationToken);
        using DeviceBuffer<float> floats = open.Allocate<float>(200);
        using DeviceBuffer<byte> bytes = open.Allocate<byte>(77);
        float[] numbers = [.. Enumerable.Range(0, 200).Select(i => i * 0.5f)];
        byte[] codes = Random(77, 2);
        upload.Copy(floats, numbers.AsSpan(0, 33), 0);
        upload.Copy<byte>(bytes, codes, 0);
        upload.Copy(floats, numbers.AsSpan(33), 33);
        upload.Complete();
        Assert.Equal(numbers, floats.ToArray(open.DefaultStream));
        Assert.Equal(codes, bytes.ToArray(open.DefaultStream));
        Assert.Throws<ArgumentException>(() => upload.Copy(floats, numbers.AsSpan(), 1));
        Assert.Throws<ArgumentException>(() => upload.Copy(floats, numbers.AsSpan(0, 1), -1));
    }

    [Theory]
    [MemberData(nameof(Cases))]
    public void The_first_bad_byte_is_found_wherever_it_is(TestDevice device, int staging)
    {
        GpuDevice open = devices.Open(device);
        using var upload = new StagedUpload(open, staging, TestContext.Current.CancellationToken);
        int length = staging < 1024 ? 1000 : (1 << 20) + 5;
        using DeviceBuffer<byte> target = open.Allocate<byte>(length);
        byte[] source = new byte[length];
        foreach (int at in (int[])[0, 1, 63, 64, 127, 128, 256 * 1024, (512 * 1024) - 1, length - 1])
        {
            if (at >= length)
                continue;
            source[at] = source[^1] = 0xFF;
            Assert.Equal(at, upload.Copy<byte>(target, source, 0, bytes => bytes.IndexOf((byte)0xFF)));
            source[at] = source[^1] = 0;
        }
    }

    [Theory]
    [MemberData(nameof(ModelDevices.All), MemberType = typeof(ModelDevices))]
    public void Cancelling_stops_at_the_next_full_buffer(TestDevice device)
    {
        GpuDevice open = devices.Open(device);
        using var stop = new CancellationTokenSource();
        using DeviceBuffer<byte> target = open.Allocate<byte>(1000);
        byte[] source = new byte[1000];
        using (var upload = new StagedUpload(open, 256, stop.Token))
        {
            upload.Copy<byte>(target, source, 0);
            stop.Cancel();
            Assert.Throws<OperationCanceledException>(() => upload.Copy<byte>(target, source, 0));
        }
        Assert.Equal(0, open.Ledger.PinnedBytes);
    }

    private static byte[] Random(int length, int seed)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }
}
