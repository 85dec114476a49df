using System.CommandLine;
using System.CommandLine.Invocation;
using System.CommandLine.Parsing;
using System.Text;
using GpuKit.Ilgpu.Cli.Commands;

namespace GpuKit.Ilgpu.Cli;

/// <summary>The program: results on stdout, everything else on stderr, and no exception that gets past it.</summary>
internal static class Application
{
    public static async Task<int> RunAsync(string[] args)
    {
        UseUtf8();
        using var interrupts = new Interrupts();
        ParseResult parse = CreateRoot(interrupts).Parse(args, new ParserConfiguration
        {
            // A prompt may start with @ or look like bundled letters.
            ResponseFileTokenReplacer = null,
            EnablePosixBundling = false,
        });
        if (parse.Action is ParseErrorAction)
            return ErrorLine.WriteUsage(UsageError(parse));
        try
        {
            return await parse.InvokeAsync(new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null }).ConfigureAwait(false);
        }
#pragma warning disable CA1031 // the one place where every exception becomes a line and an exit code
        catch (Exception e)
#pragma warning restore CA1031
        {
            return ErrorLine.Write(e);
        }
    }

    private static RootCommand CreateRoot(Interrupts interrupts) => new("Language models on ILGPU kernels: talk to a checkpoint, check it, quantise it, list devices, write PTX.")
    {
        InfoCommand.Create(),
        GenerateCommand.Create(interrupts),
        ChatCommand.Create(interrupts),
        EvalCommand.Create(interrupts),
        QuantizeCommand.Create(interrupts),
        SynthCommand.Create(interrupts),
        ErrorCommand.Create(interrupts),
        PtxCommand.Create(interrupts),
    };

    // An unknown option before the prompt is taken for the prompt, and the complaint is then about the prompt itself.
    private static string UsageError(ParseResult parse)
    {
        string? mistaken = parse.Tokens.Any(t => t.Type == TokenType.DoubleDash) ? null : parse.CommandResult.Children.OfType<ArgumentResult>()
            .SelectMany(a => a.Tokens).Select(t => t.Value).FirstOrDefault(v => v.StartsWith("--", StringComparison.Ordinal));
        mistaken ??= parse.UnmatchedTokens.FirstOrDefault(t => t.StartsWith("--", StringComparison.Ordinal));
        string command = parse.CommandResult.Command is RootCommand ? "gpukit" : "gpukit " + parse.CommandResult.Command.Name;
        string problem = mistaken is not null ? $"there is no option '{mistaken}'."
            : parse is { CommandResult.Command: RootCommand, UnmatchedTokens: [string unknown, ..] } ? $"there is no command '{unknown}'."
            : parse.Errors[0].Message;
        return $"{problem} ({command} --help lists what there is)";
    }

    private static void UseUtf8()
    {
        try
        {
            Console.OutputEncoding = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);
            Console.InputEncoding = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false);
        }
        catch (IOException)
        {
            // Without a console there is nothing to set; redirected streams are UTF-8 already.
        }
    }
}
