using Spectre.Console;

namespace GpuKit.Ilgpu.Cli;

/// <summary>Where tables are written: stdout, wide enough that a file or pipe gets one line a row.</summary>
internal static class ResultTable
{
    private const int RedirectedWidth = 200;

    public static IAnsiConsole Console()
    {
        IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(System.Console.Out) });
        if (System.Console.IsOutputRedirected)
            console.Profile.Width = RedirectedWidth;
        return console;
    }
}
