using System.CommandLine;
using System.Text;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli.Commands;

/// <summary><c>gpukit generate</c>: one prompt, one completion.</summary>
internal sealed class GenerateCommand
{
    private readonly Argument<string> prompt = new("PROMPT") { Description = "The prompt; - reads it from stdin." };
    private readonly Option<bool> raw = new("--raw") { Description = "Send the prompt as it is, without the chat format." };
    private readonly ModelOptions model = new();
    private readonly GenerationFlags flags = new();
    private readonly Option<bool> json = JsonOutput.CreateOption();
    private readonly Interrupts interrupts;

    private GenerateCommand(Interrupts interrupts) => this.interrupts = interrupts;

    public static Command Create(Interrupts interrupts)
    {
        var parts = new GenerateCommand(interrupts);
        var command = new Command("generate", "Answers a prompt: the answer alone goes to stdout.") { parts.prompt };
        parts.model.AddTo(command);
        parts.flags.AddTo(command);
        command.Add(parts.raw);
        command.Add(parts.json);
        command.Validators.Add(result =>
        {
            if (result.GetValue(parts.raw) && result.GetValue(parts.flags.System) is not null)
                result.AddError("--system needs the chat format, which --raw switches off.");
        });
        command.SetAction((parse, _) => parts.RunAsync(parse));
        return command;
    }

    private async Task<int> RunAsync(ParseResult parse)
    {
        GenerationOptions options = flags.Read(parse, SamplingOptions.Greedy);
        string text = ReadPrompt(parse.GetRequiredValue(prompt));
        using Loaded<LanguageModel> loaded = model.Load(parse, (device, folder, load) => LanguageModel.Load(device, folder, load, interrupts.Program));
        using var generator = new TextGenerator(loaded.Model, flags.ContextLength(parse), flags.KvCache(parse));
        IReadOnlyList<int> ids = Encode(parse, loaded.Model, generator, text);
        bool asJson = parse.GetValue(json);
        var answer = new StringBuilder();
        await foreach (string piece in generator.GenerateAsync(ids, options, interrupts.Program))
        {
            answer.Append(piece);
            if (!asJson)
                Console.Out.Write(piece);
        }
        if (asJson)
            JsonOutput.WriteLine(Result(answer.ToString(), generator, options, loaded));
        else
            Console.Out.WriteLine();
        Console.Error.WriteLine(StatisticsLine.Of(loaded));
        Console.Error.WriteLine(StatisticsLine.Of(generator.LastStatistics!) + StatisticsLine.Seed(options.Sampling));
        return ExitCodes.Ok;
    }

    private IReadOnlyList<int> Encode(ParseResult parse, LanguageModel language, TextGenerator generator, string text)
    {
        if (parse.GetValue(raw))
        {
            generator.RequireRoom(text);
            return language.Tokenizer.Encode(text);
        }
        List<ChatMessage> messages = Messages(parse.GetValue(flags.System), text);
        generator.RequireRoom(language.Chat.Render(messages));
        return language.Chat.EncodeChat(language.Tokenizer, messages);
    }

    private static AnswerResult Result(string text, TextGenerator generator, GenerationOptions options, Loaded<LanguageModel> loaded) =>
        AnswerResult.Create(text, generator.LastStatistics, options.Sampling) with
        {
            LoadSeconds = loaded.LoadTime.TotalSeconds,
            Model = loaded.Name,
            Device = loaded.Device.Name,
        };

    // The line break that ends a typed or echoed line is not part of the prompt.
    private static string ReadPrompt(string prompt)
    {
        string text = prompt == "-" ? ReadAll(Console.In, new TokenizerOptions().MaxPromptBytes) : prompt;
        if (prompt == "-" && text.EndsWith('\n'))
            text = text[..^(text.EndsWith("\r\n", StringComparison.Ordinal) ? 2 : 1)];
        return text.Length > 0 ? text : throw new ArgumentException("The prompt is empty; give a text, or - and a text on stdin.");
    }

    // A stream without end must not fill the memory before anybody looks at its length.
    private static string ReadAll(TextReader reader, int mostChars)
    {
        var text = new StringBuilder();
        var part = new char[64 * 1024];
        for (int count; (count = reader.Read(part, 0, part.Length)) > 0;)
        {
            text.Append(part, 0, count);
            if (text.Length > mostChars)
                throw new ArgumentException($"The prompt on stdin has more than {mostChars} characters; at most that many are accepted.");
        }
        return text.ToString();
    }

    private static List<ChatMessage> Messages(string? system, string user)
    {
        var question = new ChatMessage(ChatRole.User, user);
        return system is null ? [question] : [new ChatMessage(ChatRole.System, system), question];
    }
}
