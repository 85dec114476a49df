using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Tests.Models;

public sealed class StopTextFilterTests
{
    [Fact]
    public void Without_stop_texts_everything_passes_at_once()
    {
        var filter = new StopTextFilter([]);
        Assert.Equal("abc", filter.Append("abc"));
        Assert.Equal("", filter.Flush());
        Assert.False(filter.Stopped);
    }

    [Theory]
    [InlineData("one stop two", "one ", true)]
    [InlineData("stop", "", true)]
    [InlineData("ends with sto", "ends with sto", false)]
    [InlineData("ststop", "st", true)]
    [InlineData("sstostostop", "sstosto", true)]
    [InlineData("the END stop", "the ", true)]
    [InlineData("EN D sto p", "EN D sto p", false)]
    [InlineData("", "", false)]
    public void A_text_is_cut_at_the_first_stop_text_however_it_is_split(string text, string expected, bool stopped)
    {
        for (int size = 1; size <= Math.Max(1, text.Length); size++)
        {
            var filter = new StopTextFilter(["stop", "END", ""]);
            string passed = string.Concat(text.Chunk(size).Select(piece => filter.Append(new string(piece)))) + filter.Flush();
            Assert.Equal((expected, stopped), (passed, filter.Stopped));
        }
    }

    [Fact]
    public void Only_what_may_become_a_stop_text_is_held_back()
    {
        var filter = new StopTextFilter(["\nUser:"]);
        Assert.Equal("line", filter.Append("line\nUs"));
        Assert.Equal("\nUsual", filter.Append("ual"));
        Assert.Equal("", filter.Append("\nUser"));
        Assert.Equal("", filter.Append(": more"));
        Assert.True(filter.Stopped);
        Assert.Equal("", filter.Append("later") + filter.Flush());
    }

    [Fact]
    public void Case_and_culture_do_not_matter_to_the_comparison() =>
        Assert.Equal("stra\u00DFe STOP", new StopTextFilter(["strasse", "Stop"]).Append("stra\u00DFe STOP"));
}
