using GpuKit.Ilgpu.Tests.Support;
using ILGPU;

namespace GpuKit.Ilgpu.Tests.Ops;

/// <summary>The same bits every time, whatever else the device does, and for a row whatever stands beside it.</summary>
public sealed class RepeatabilityTests
{
    public static TheoryData<TestDevice> Devices => ModelDevices.All;

    [Theory]
    [MemberData(nameof(Devices))]
    public void EveryOperatorRepeatsItsBits(TestDevice which) => Repeat(TestDevices.Get(which));

    [Theory]
    [MemberData(nameof(Devices))]
    public async Task EveryOperatorRepeatsItsBitsBesideABusyStream(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        using GpuStream busy = device.CreateStream();
        using var tensors = new CaseTensors(device);
        (QuantizedMatrix w, ArrayView<BFloat16> x, ArrayView<float> y) = (tensors.Matrix(WeightFormat.Bf16, 256, 256), tensors.Halves(8 * 256), tensors.Output<float>(8 * 256));
        using var stop = new CancellationTokenSource();
        Task noise = Task.Run(() =>
        {
            while (!stop.IsCancellationRequested)
            {
                for (int i = 0; i < (device.IsCuda ? 64 : 1); i++)
                    Linear.Multiply(busy, w, x, y, 8);
                busy.Synchronize();
            }
        }, CancellationToken.None);
        try
        {
            Repeat(device);
        }
        finally
        {
            await stop.CancelAsync();
            await noise;
        }
    }

    // Up to 16 rows stream; an accumulator's dot products are a row's own for any M.
    [Theory]
    [MemberData(nameof(Devices))]
    public void ARowOfAProductHasItsBitsAmongOneToSixteen(TestDevice which)
    {
        GpuDevice device = TestDevices.Get(which);
        foreach (WeightFormat format in WeightFormats.All)
            foreach (Accumulator accumulator in new[] { Accumulator.Float32, Accumulator.Kahan })
                foreach ((int n, int k) in device.IsCuda ? new[] { (72, 160), (1024, 2048) } : [(24, 160)])
                {
                    using var tensors = new CaseTensors(device);
                    (QuantizedMatrix w, ArrayView<BFloat16> x) = (tensors.Matrix(format, n, k), tensors.Halves(16 * k));
                    float[] Multiply(int first, int m)
                    {
                        using GuardedBuffer<float> y = GuardedBuffer<float>.Output(device, m * n);
                        Linear.Multiply(device.DefaultStream, w, x.SubView((long)first * k, (long)m * k), y.View, m, accumulator: accumulator);
                        return y.ToArray();
                    }
                    float[] sixteen = Multiply(0, 16);
                    for (int m = 1; m < 16; m++)
                    {
                        Assert.True(sixteen.AsSpan(0, m * n).SequenceEqual(Multiply(0, m)), $"{format} {accumulator} [{n}, {k}]: the first rows of {m} differ from those of 16.");
                        Assert.True(sixteen.AsSpan(m * n, n).SequenceEqual(Multiply(m, 1)), $"{format} {accumulator} [{n}, {k}]: row {m} alone differs from row {m} of 16.");
                    }
                }
    }

    // Tiles of 32 and of 64 rows, and as many of those, split K alike for all their numbers of rows.
    [Fact]
    public void ARowOfAProductHasItsBitsAmongAsManyTilesOfRows()
    {
        GpuDevice device = TestDevices.Get(TestDevice.Cuda);
        foreach (WeightFormat format in WeightFormats.All.Where(SplitKernels.Exist))
            foreach ((int n, int k) in new[] { (264, 1056), (1024, 2048), (512, 4096) })
            {
                using var tensors = new CaseTensors(device);
                (QuantizedMatrix w, ArrayView<BFloat16> x) = (tensors.Matrix(format, n, k), tensors.Halves(256 * k));
                float[] Multiply(int first, int m)
                {
                    using GuardedBuffer<float> y = GuardedBuffer<float>.Output(device, m * n);
                    Linear.Multiply(device.DefaultStream, w, x.SubView((long)first * k, (long)m * k), y.View, m);
                    return y.ToArray();
                }
                // More than 64 rows where the plan has K split.
                foreach ((int least, int most, int step) in new[] { (17, 32, 1), (33, 64, 1), (65, 128, 21), (129, 192, 21), (193, 256, 21) }.Where(c => c.Item2 <= 64 || SplitPlan.IsChosen(new LinearShape(c.Item2, n, k, format, true, 0, w.Block), LinearDevice.Of(device))))
                {
                    float[] all = Multiply(0, most);
                    for (int m = least; m < most; m += step)
                    {
                        Assert.True(all.AsSpan(0, m * n).SequenceEqual(Multiply(0, m)), $"{format} [{n}, {k}]: the first rows of {m} differ from those of {most}.");
                        Assert.True(all.AsSpan((most - m) * n).SequenceEqual(Multiply(most - m, m)), $"{format} [{n}, {k}]: the last {m} rows differ from those of {most}.");
                    }
                }
            }
    }

    /// <summary>Whether results are the same bytes.</summary>
    internal static bool AreEqual(byte[][] a, byte[][] b) => a.Length == b.Length && a.Zip(b, (x, y) => x.AsSpan().SequenceEqual(y)).All(equal => equal);

    private static void Repeat(GpuDevice device)
    {
        foreach (SmallCase small in OperatorCases.Of(device))
        {
            using var tensors = new CaseTensors(device);
            Action<GpuStream> launch = small.Prepare(tensors);
            byte[][]? first = null;
            for (int repeat = 0; repeat < (device.IsCuda ? 100 : 3); repeat++)
            {
                tensors.Reset(device.DefaultStream);
                launch(device.DefaultStream);
                byte[][] results = tensors.Results(device.DefaultStream);
                Assert.True(AreEqual(first ??= results, results), $"{small.Name}: repeat {repeat} differs from the first run.");
            }
        }
    }
}
