using System.CommandLine;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli.Commands;

/// <summary><c>gpukit chat</c>: a conversation. Answers go to stdout, everything around them to stderr.</summary>
internal sealed class ChatCommand
{
    private readonly ModelOptions model = new();
    private readonly GenerationFlags flags = new();
    private readonly Option<bool> json = JsonOutput.CreateOption();
    private readonly Interrupts interrupts;

    private ChatCommand(Interrupts interrupts) => this.interrupts = interrupts;

    public static Command Create(Interrupts interrupts)
    {
        var parts = new ChatCommand(interrupts);
        var command = new Command("chat", "Talks with a model, sampled as its generation_config.json says. Ctrl-C stops an answer; /help lists commands.");
        parts.model.AddTo(command);
        parts.flags.AddTo(command);
        command.Add(parts.json);
        command.SetAction((parse, _) => parts.RunAsync(parse));
        return command;
    }

    private async Task<int> RunAsync(ParseResult parse)
    {
        // Wrong values are refused before the model is loaded.
        _ = flags.Read(parse, SamplingOptions.Greedy);
        using Loaded<LanguageModel> loaded = model.Load(parse, (device, folder, load) => LanguageModel.Load(device, folder, load, interrupts.Program));
        GenerationOptions options = flags.Read(parse, loaded.Model.DefaultSampling());
        _ = loaded.Model.Chat;
        using var generator = new TextGenerator(loaded.Model, flags.ContextLength(parse), flags.KvCache(parse));
        Console.Error.WriteLine(StatisticsLine.Of(loaded) + StatisticsLine.Seed(options.Sampling));
        var loop = new ChatLoop(new Conversation(loaded.Model, generator) { System = parse.GetValue(flags.System) }, generator, interrupts)
        {
            Options = options,
            Json = parse.GetValue(json),
        };
        return await loop.RunAsync().ConfigureAwait(false);
    }
}
