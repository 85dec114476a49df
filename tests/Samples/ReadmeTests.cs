using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;

namespace GpuKit.Ilgpu.Tests.Samples;

/// <summary>The example of the README is the sample, the sample computes what it says, and figures are those of docs/results.</summary>
public sealed class ReadmeTests
{
    private const string Sample = "MultiplyQuantized";

    [Fact]
    public void TheReadmeShowsTheSample()
    {
        string example = File.ReadAllText(Path.Combine(Checkout(), "samples", Sample, "Program.cs")).ReplaceLineEndings("\n").Trim();
        string readme = File.ReadAllText(Path.Combine(Checkout(), "README.md")).ReplaceLineEndings("\n");
        Assert.Contains($"```csharp\n{example}\n```", readme, StringComparison.Ordinal);
    }

    [Fact]
    public void TheReadmeIsShort() =>
        Assert.InRange(File.ReadAllLines(Path.Combine(Checkout(), "README.md")).Length, 1, 150);

    [Fact]
    public async Task TheSampleMultiplies()
    {
        (int exitCode, string output, string error) = await RunAsync(Sample);
        Assert.True(exitCode == 0, error);
        Match match = Regex.Match(output, @"^\w.*, (\d+) bytes of weights, y\[1\] = (\S+)\s*$");
        Assert.True(match.Success, output);
        Assert.Equal((256 * 512) + (4 * 2 * 4), int.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture));
        double expected = Expected(row: 1, n: 256, k: 512);
        Assert.Equal(expected, double.Parse(match.Groups[2].Value, CultureInfo.InvariantCulture), 2e-3 * Math.Abs(expected));
    }

    [Fact]
    public async Task FiguresInTheDocumentsAreTheMeasuredOnes()
    {
        _ = Checkout();
        (int exitCode, _, string error) = await RunAsync("GpuKit.Ilgpu.Bench", "report", "--check");
        Assert.True(exitCode == 0, error);
    }

    private static string Checkout()
    {
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "GpuKit.Ilgpu.sln")))
            folder = folder.Parent;
        Assert.SkipWhen(folder is null, "The tests do not run inside a checkout.");
        return folder!.FullName;
    }

    // The sample's operands in double.
    private static double Expected(int row, int n, int k)
    {
        float[] weights = Quantizer.Dequantize(Quantizer.Quantize([.. Enumerable.Range(0, n * k).Select(i => MathF.Sin(i))], n, k, WeightFormat.Fp8Block));
        return Enumerable.Range(0, k).Sum(i => (double)weights[(row * k) + i] * (float)(BFloat16)MathF.Cos(i));
    }

    private static async Task<(int ExitCode, string Output, string Error)> RunAsync(string program, params string[] arguments)
    {
        ProcessStartInfo start = Command(program);
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        start.RedirectStandardOutput = true;
        start.RedirectStandardError = true;
        // Numbers with a point, whatever the machine's language.
        start.Environment["DOTNET_SYSTEM_GLOBALIZATION_INVARIANT"] = "1";
        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        string output = await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        return (process.ExitCode, output, await error);
    }

    // Beside the tests when both were published into one folder, else in the artifacts of the same configuration.
    private static ProcessStartInfo Command(string program)
    {
        string beside = Path.Combine(AppContext.BaseDirectory, program + (OperatingSystem.IsWindows() ? ".exe" : ""));
        if (File.Exists(beside))
            return new ProcessStartInfo(beside);
        var configuration = new DirectoryInfo(AppContext.BaseDirectory);
        string built = Path.Combine(Checkout(), "artifacts", "bin", program, configuration.Name, program + ".dll");
        Assert.True(File.Exists(built), $"{built} was not built.");
        return new ProcessStartInfo("dotnet", [built]);
    }
}
