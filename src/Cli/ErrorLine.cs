using System.Text;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli;

/// <summary>Turns what went wrong into one line on stderr and an exit code.</summary>
internal static class ErrorLine
{
    /// <summary>Set to 1 to see the whole exception behind a line.</summary>
    private const string TraceVariable = "GPUKIT_TRACE";

    public static int Write(Exception e)
    {
        if (e is AggregateException { InnerExceptions.Count: 1 })
            return Write(e.InnerException!);
        Console.Error.WriteLine("error: " + OneLine(Describe(e)));
        if (Environment.GetEnvironmentVariable(TraceVariable) == "1")
            Console.Error.WriteLine(e);
        return e switch
        {
            OperationCanceledException => ExitCodes.Failure,
            ArgumentException => ExitCodes.Usage,
            _ => ExitCodes.Failure,
        };
    }

    public static int WriteUsage(string problem)
    {
        Console.Error.WriteLine("error: " + OneLine(problem));
        return ExitCodes.Usage;
    }

    private static string Describe(Exception e) => e switch
    {
        OperationCanceledException => "cancelled",
        ArgumentException { ParamName: { } name } => e.Message.Replace($" (Parameter '{name}')", "", StringComparison.Ordinal),
        ArgumentException or ModelFileException or GpuException or PtxInstructionNotSupportedException or PlatformNotSupportedException
            or IOException or UnauthorizedAccessException => e.Message,
        _ => $"unexpected {e.GetType().Name}: {e.Message} ({TraceVariable}=1 shows where)",
    };

    // Messages may quote files: neither line breaks nor control characters may reach the terminal.
    private static string OneLine(string text)
    {
        var line = new StringBuilder(text.Length);
        foreach (char c in text)
            if (!char.IsControl(c))
                line.Append(c);
            else if (line.Length > 0 && line[^1] != ' ')
                line.Append(' ');
        return line.ToString().TrimEnd();
    }
}
