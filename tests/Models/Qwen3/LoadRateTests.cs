using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Tests.Models.Qwen3;

/// <summary>Speed and time left while loading.</summary>
public sealed class LoadRateTests
{
    [Fact]
    public void An_even_speed_is_told_as_it_is()
    {
        var clock = new Clock();
        var rate = new LoadRate(clock);
        Assert.Equal((0, null), (rate.BytesPerSecond, rate.TimeFor(1)));
        for (int i = 1; i <= 100; i++)
        {
            clock.Advance(10);
            rate.Update(i * 1000);
        }
        Assert.Equal(100_000, rate.BytesPerSecond, 6);
        Assert.Equal(TimeSpan.FromSeconds(2), rate.TimeFor(200_000));
        Assert.Equal(TimeSpan.Zero, rate.TimeFor(0));
    }

    [Fact]
    public void A_change_of_speed_is_followed_within_seconds_and_one_pause_is_not_the_end()
    {
        var clock = new Clock();
        var rate = new LoadRate(clock);
        long bytes = 0;
        Run(1000, 20);
        Run(100, 1);
        Assert.InRange(rate.BytesPerSecond, 9000, 9600);
        Run(100, 100);
        Assert.InRange(rate.BytesPerSecond, 1000, 1200);
        clock.Advance(500);
        rate.Update(bytes);
        Assert.InRange(rate.BytesPerSecond, 700, 1000);

        void Run(int each, int times)
        {
            for (int i = 0; i < times; i++)
            {
                clock.Advance(100);
                rate.Update(bytes += each);
            }
        }
    }

    private sealed class Clock : TimeProvider
    {
        private long milliseconds;

        public override long TimestampFrequency => 1000;

        public override long GetTimestamp() => milliseconds;

        public void Advance(long by) => milliseconds += by;
    }
}
