using System.Diagnostics;
using System.Globalization;
using System.Text;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Cli;

/// <summary>Runs the program as its users do: as a process of its own.</summary>
internal static class GpukitProcess
{
    private const int TimeoutSeconds = 300;

    /// <summary>What a finished run left.</summary>
    public sealed record Result(int ExitCode, string Out, string Error)
    {
        /// <summary>Asserts a failure as users should see it: its exit code, nothing on stdout, one line on stderr, no stack trace.</summary>
        public void AssertFailed(int exitCode, params ReadOnlySpan<string> words)
        {
            Assert.Equal((exitCode, ""), (ExitCode, Out));
            AssertOneErrorLine(words);
        }

        public void AssertOneErrorLine(params ReadOnlySpan<string> words)
        {
            string line = Assert.Single(Error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
            Assert.StartsWith("error: ", line, StringComparison.Ordinal);
            Assert.DoesNotContain("   at ", line, StringComparison.Ordinal);
            Assert.DoesNotContain("unexpected", line, StringComparison.Ordinal);
            foreach (string word in words)
                Assert.Contains(word, line, StringComparison.Ordinal);
        }

        /// <summary>Asserts success and returns stdout.</summary>
        public string AssertOk()
        {
            Assert.True(ExitCode == 0, $"exit code {ExitCode}: {Error}");
            Assert.DoesNotContain("   at ", Error, StringComparison.Ordinal);
            return Out;
        }
    }

    /// <summary>Theory data: what <c>--device</c> is tested with.</summary>
    public static TheoryData<string> Devices => ["cpu", "cuda"];

    public static string Reference => Path.Combine(RepositoryFolder.TinyModel, "reference.safetensors");

    public static string Verses => Path.Combine(RepositoryFolder.TinyModel, "verses.json");

    /// <summary>Skips a test for a device that is not there.</summary>
    public static void RequireDevice(string device)
    {
        if (device == "cuda")
            TestDevices.Get(TestDevice.Cuda);
    }

    public static Task<Result> RunAsync(params string[] arguments) => RunWithInputAsync("", null, arguments);

    /// <summary>Runs with a redirected input, in a folder.</summary>
    public static async Task<Result> RunWithInputAsync(string input, string? folder, params string[] arguments)
    {
        using Process process = Start(arguments, folder);
        Task<string> output = process.StandardOutput.ReadToEndAsync(), error = process.StandardError.ReadToEndAsync();
        try
        {
            await process.StandardInput.WriteAsync(input);
            process.StandardInput.Close();
        }
        catch (IOException)
        {
            // A program that refuses its input may end before all of it is written.
        }
        return await FinishAsync(process, output, error);
    }

    /// <summary>Runs until the first character of the output, sends SIGINT as Ctrl-C does, and waits for the end.</summary>
    public static async Task<Result> InterruptAsync(params string[] arguments)
    {
        using Process process = Start(arguments, null, mayBeInterrupted: true);
        Task<string> error = process.StandardError.ReadToEndAsync();
        await process.StandardOutput.ReadAsync(new char[1], TestContext.Current.CancellationToken);
        using Process kill = Process.Start("kill", ["-INT", process.Id.ToString(CultureInfo.InvariantCulture)]);
        await kill.WaitForExitAsync(TestContext.Current.CancellationToken);
        return await FinishAsync(process, process.StandardOutput.ReadToEndAsync(), error);
    }

    private static async Task<Result> FinishAsync(Process process, Task<string> output, Task<string> error)
    {
        using var timeout = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        timeout.CancelAfter(TimeSpan.FromSeconds(TimeoutSeconds));
        try
        {
            await process.WaitForExitAsync(timeout.Token);
        }
        catch (OperationCanceledException)
        {
            process.Kill();
            throw new TimeoutException($"gpukit did not end within {TimeoutSeconds} s");
        }
        return new Result(process.ExitCode, Normal(await output), Normal(await error));
    }

    private static string Normal(string text) => text.ReplaceLineEndings("\n");

    private static Process Start(string[] arguments, string? folder, bool mayBeInterrupted = false)
    {
        string program = Path.Combine(AppContext.BaseDirectory, "gpukit");
        // A self-contained bundle brings its runtime and is started by its own executable; else the installed runtime runs the assembly.
        bool selfContained = File.ReadAllText(program + ".runtimeconfig.json").Contains("includedFrameworks", StringComparison.Ordinal);
        string executable = selfContained ? program + (OperatingSystem.IsWindows() ? ".exe" : "") : Environment.GetEnvironmentVariable("DOTNET_HOST_PATH") ?? "dotnet";
        bool listens = mayBeInterrupted && IgnoresInterrupts();
        var start = new ProcessStartInfo(listens ? "env" : executable)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            StandardInputEncoding = new UTF8Encoding(false),
            StandardOutputEncoding = Encoding.UTF8,
            StandardErrorEncoding = Encoding.UTF8,
            WorkingDirectory = folder ?? "",
        };
        start.Environment.Remove("GPUKIT_TRACE");
        if (listens)
        {
            start.ArgumentList.Add("--default-signal=INT");
            start.ArgumentList.Add(executable);
        }
        if (!selfContained)
            start.ArgumentList.Add(program + ".dll");
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        return Process.Start(start)!;
    }

    // A shell without a terminal starts what runs in the background so, and whatever that starts inherits it: the program would never hear of Ctrl-C.
    private static bool IgnoresInterrupts()
    {
        const string Field = "SigIgn:";
        const ulong Interrupt = 1UL << (2 - 1);
        return OperatingSystem.IsLinux() && File.ReadLines("/proc/self/status").First(line => line.StartsWith(Field, StringComparison.Ordinal)) is { } line
            && (ulong.Parse(line.AsSpan(Field.Length).Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture) & Interrupt) != 0;
    }
}
