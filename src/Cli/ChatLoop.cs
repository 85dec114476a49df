using System.Text;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli;

/// <summary>Reads questions line by line and streams the answers, until the input ends.</summary>
internal sealed class ChatLoop(Conversation conversation, TextGenerator generator, Interrupts interrupts)
{
    private const string Help = "/clear forgets the conversation; /system TEXT sets the system prompt, /system alone removes it; /quit ends; Ctrl-C stops an answer";

    private readonly Task ended = Task.Delay(Timeout.Infinite, interrupts.Program);
    private bool failed;

    public required GenerationOptions Options { get; init; }

    /// <summary>Whether each answer is one JSON object a line.</summary>
    public required bool Json { get; init; }

    /// <summary>Runs to the end of the input. A question that could not be asked fails a run that nobody watches.</summary>
    public async Task<int> RunAsync()
    {
        if (!Console.IsInputRedirected)
            Console.Error.WriteLine(Help);
        while (await ReadAsync().ConfigureAwait(false) is { } line)
        {
            if (line.StartsWith('/'))
            {
                if (!Obey(line))
                    break;
            }
            else if (!string.IsNullOrWhiteSpace(line))
            {
                await AskAsync(line).ConfigureAwait(false);
            }
        }
        return failed && Console.IsInputRedirected ? ExitCodes.Failure : ExitCodes.Ok;
    }

    // On another thread: a blocked console read cannot be cancelled, but it can be left behind when the program ends.
    private async Task<string?> ReadAsync()
    {
        if (!Console.IsInputRedirected)
            Console.Error.Write("> ");
        Task<string?> read = Task.Run(Console.In.ReadLine);
        return await Task.WhenAny(read, ended).ConfigureAwait(false) == read ? await read.ConfigureAwait(false) : null;
    }

    /// <summary>Follows a command; false ends the loop.</summary>
    private bool Obey(string line)
    {
        string[] words = line.Split(' ', 2, StringSplitOptions.TrimEntries);
        switch (words[0])
        {
            case "/quit":
                return false;
            case "/clear":
                conversation.Clear();
                Console.Error.WriteLine("the conversation is forgotten");
                return true;
            case "/system":
                conversation.System = words.Length > 1 && words[1].Length > 0 ? words[1] : null;
                Console.Error.WriteLine(conversation.System is null ? "no system prompt" : "system prompt set");
                return true;
            case "/help":
                Console.Error.WriteLine(Help);
                return true;
            default:
                failed = true;
                Console.Error.WriteLine($"error: there is no command {words[0]}; {Help}");
                return true;
        }
    }

    private async Task AskAsync(string question)
    {
        var answer = new StringBuilder();
        GenerationStatistics? statistics = null;
        CancellationToken cancellation = interrupts.BeginAnswer();
        try
        {
            await foreach (string piece in conversation.AskAsync(question, Options, cancellation))
            {
                answer.Append(piece);
                if (!Json)
                    Console.Out.Write(piece);
            }
            statistics = generator.LastStatistics;
        }
        catch (OperationCanceledException) when (!interrupts.Program.IsCancellationRequested)
        {
            // Ctrl-C stops the answer; what came of it stays in the conversation.
        }
        catch (ArgumentException e)
        {
            failed = true;
            ErrorLine.Write(e);
            return;
        }
        finally
        {
            interrupts.EndAnswer();
        }
        if (Json)
            JsonOutput.WriteLine(AnswerResult.Create(answer.ToString(), statistics, Options.Sampling));
        else
            Console.Out.WriteLine();
        Console.Error.WriteLine(statistics is null ? "stopped" : StatisticsLine.Of(statistics));
    }
}
