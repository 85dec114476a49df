using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli.Commands;

/// <summary><c>gpukit error</c>: what each weight format costs, in products and, with a model, in what it says.</summary>
internal sealed class ErrorCommand
{
    private const int DefaultSeed = 1;

    // Products are also computed in double precision on the host; larger ones would take minutes and say nothing new.
    private const int MostExtent = 1 << 16;
    private const long MostElements = 1L << 28;

    private readonly Option<CheckpointFormat[]> formats = List("--formats", CheckpointFormat.Names.Replace('|', ','), "Weight formats; all when not given.",
        text => CheckpointFormat.All.FirstOrDefault(f => f.Name == text), $"some of {CheckpointFormat.Names}");

    private readonly Option<(int K, int N)?[]> shapes = List("--shapes", "KxN,…", "Shapes of the random weights (512x512,1536x768).", ParseShape, $"shapes KxN such as 2048x768, at most {MostElements} weights");
    private readonly Option<string?> model = new("--model") { Description = "Folder of a checkpoint: its weights are measured, and the model itself in each format.", HelpName = "DIR" };
    private readonly Option<string?> verses = new("--verses") { Description = "Questions for the model; verses.json of its folder when not given.", HelpName = "FILE" };
    private readonly Option<string?> reference = new("--reference") { Description = "Logits to compare with; reference.safetensors of its folder when not given.", HelpName = "FILE" };
    private readonly Option<int?> take = Numbers.Whole("--take", 1, "Ask only the first N verses; all when not given.");
    private readonly Option<int?> seed = Numbers.Whole("--seed", 0, $"Seed of the random numbers ({DefaultSeed}).");
    private readonly Option<string?> folder = new("--out") { Description = "Append the results to error-<device>.jsonl of a folder.", HelpName = "FOLDER" };
    private readonly DeviceOptions device = new();
    private readonly Option<bool> json = JsonOutput.CreateOption();
    private readonly Interrupts interrupts;

    private ErrorCommand(Interrupts interrupts) => this.interrupts = interrupts;

    public static Command Create(Interrupts interrupts)
    {
        var parts = new ErrorCommand(interrupts);
        var command = new Command("error", "Measures the error of each weight format, with inputs and sums that go with it: of products, and of a model's answers.");
        foreach (Option option in (Option[])[parts.formats, parts.shapes, parts.model, parts.verses, parts.reference, parts.take, parts.seed, parts.folder])
            command.Add(option);
        parts.device.AddTo(command);
        command.Add(parts.json);
        command.Validators.Add(result =>
        {
            if (result.GetValue(parts.model) is null && ((Option[])[parts.verses, parts.reference, parts.take]).FirstOrDefault(o => result.GetResult(o) is not null) is { } lone)
                result.AddError($"{lone.Name} needs --model.");
        });
        command.SetAction((parse, _) => parts.RunAsync(parse));
        return command;
    }

    private async Task<int> RunAsync(ParseResult parse)
    {
        CheckpointFormat[] chosen = parse.GetValue(formats) is { Length: > 0 } some ? some : [.. CheckpointFormat.All];
        (int K, int N)[] sizes = parse.GetValue(shapes) is { Length: > 0 } named ? [.. named.Select(s => s!.Value)] : [(512, 512), (1536, 768)];
        int start = parse.GetValue(seed) ?? DefaultSeed;
        string? source = parse.GetValue(model);
        List<WeightSample> samples = [.. sizes.SelectMany(s => WeightSample.Random(s.N, s.K, start)), .. source is null ? [] : WeightSample.OfModel(source)];
        using GpuDevice opened = device.Open(parse);
        IReadOnlyList<ProductError> products = ProgressBar.Show("multiplying", bar => ProductErrorEvaluator.Measure(
            opened, [.. chosen.SelectMany(ErrorCase.Of)], samples, start, bar.For<EvaluationProgress>(p => (p.Done, p.Total)), interrupts.Program));
        IReadOnlyList<ModelFormatResult> models = source is null ? [] : await ProgressBar.ShowAsync("evaluating", bar => ModelFormatEvaluator.EvaluateAsync(opened, source, chosen, new ModelFormatOptions
        {
            Verses = parse.GetValue(verses) ?? InFolder(source, "verses.json"),
            Reference = parse.GetValue(reference) ?? InFolder(source, "reference.safetensors"),
            Take = parse.GetValue(take),
            Progress = bar.For<EvaluationProgress>(p => (p.Done, p.Total)),
        }, interrupts.Program)).ConfigureAwait(false);
        string name = source is null ? "" : Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(source)));
        List<ErrorRecord> records = [.. products.Select(p => ErrorRecord.Of(p, opened, start)), .. models.Select(m => ErrorRecord.Of(m, name, opened))];
        if (parse.GetValue(json))
            JsonOutput.WriteLine(new { device = opened.Name, records });
        else
            ErrorTables.Write(products, models, name);
        if (parse.GetValue(folder) is { } target)
            Console.Error.WriteLine("appended to " + ErrorRecord.Append(target, records));
        return ExitCodes.Ok;
    }

    private static string? InFolder(string folder, string name) => File.Exists(Path.Combine(folder, name)) ? Path.Combine(folder, name) : null;

    private static (int K, int N)? ParseShape(string text)
    {
        string[] sides = text.Split('x');
        return sides.Length == 2 && int.TryParse(sides[0], NumberStyles.None, CultureInfo.InvariantCulture, out int k)
            && int.TryParse(sides[1], NumberStyles.None, CultureInfo.InvariantCulture, out int n)
            && k is > 0 and <= MostExtent && n is > 0 and <= MostExtent && (long)k * n <= MostElements ? (k, n) : null;
    }

    private static Option<T[]> List<T>(string name, string help, string description, Func<string, T?> parse, string needed) => new(name)
    {
        Description = description,
        HelpName = help,
        CustomParser = result =>
        {
            T?[] values = [.. result.Tokens[0].Value.Split(',').Select(parse)];
            if (values.All(v => v is not null))
                return values!;
            result.AddError($"{name} must be {needed}; '{result.Tokens[0].Value}' is not.");
            return [];
        },
    };
}
