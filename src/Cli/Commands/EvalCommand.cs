using System.CommandLine;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli.Commands;

/// <summary><c>gpukit eval</c>: a model against a reference file, or against questions with known answers.</summary>
internal sealed class EvalCommand
{
    private readonly Option<string?> reference = new("--reference") { Description = "Safetensors file with the logits of some prompts; needs no tokenizer.", HelpName = "FILE" };
    private readonly Option<string?> verses = new("--verses") { Description = "JSON list of {prompt, answer}; counts exact answers.", HelpName = "FILE" };
    private readonly Option<int?> take = Numbers.Whole("--take", 1, "Ask only the first N verses.");
    private readonly Option<double?> minCosine = Numbers.Real<double>("--min-cosine", "The least cosine that passes (0.999; 0.997 with an FP8 cache).");
    private readonly Option<double?> routerMargin = Numbers.Real<double>("--router-margin", "How much more likely, as a share, an expert may be than the one chosen in its place (0.01; 0.25 with an FP8 cache or --dequantize).");
    private readonly Option<EvaluationPath> path = new("--path")
    {
        Description = "What computes the logits: prompts as a whole, decode steps, or the steps of a batch (prefill).",
        HelpName = "prefill|decode|batch",
        CustomParser = result =>
        {
            switch (result.Tokens[0].Value)
            {
                case "prefill": return EvaluationPath.Prefill;
                case "decode": return EvaluationPath.Decode;
                case "batch": return EvaluationPath.Batch;
            }
            result.AddError($"--path must be prefill, decode or batch; '{result.Tokens[0].Value}' is not.");
            return default;
        },
    };
    private readonly Option<KvCacheFormat> kvCache = KvCacheOption.Create();
    private readonly Option<bool> dequantize = new("--dequantize") { Description = "Expand quantised weights to BF16 while loading." };
    private readonly ModelOptions model = new();
    private readonly Option<bool> json = JsonOutput.CreateOption();
    private readonly Interrupts interrupts;

    private EvalCommand(Interrupts interrupts) => this.interrupts = interrupts;

    public static Command Create(Interrupts interrupts)
    {
        var parts = new EvalCommand(interrupts);
        var command = new Command("eval", "Compares a model with a reference (exit code 1 when it misses the bar), or counts exact answers.");
        parts.model.AddTo(command);
        foreach (Option option in (Option[])[parts.reference, parts.verses, parts.take, parts.minCosine, parts.routerMargin, parts.path, parts.kvCache, parts.dequantize, parts.json])
            command.Add(option);
        command.Validators.Add(result =>
        {
            bool compares = result.GetValue(parts.reference) is not null, asks = result.GetValue(parts.verses) is not null;
            if (compares == asks)
                result.AddError("eval needs either --reference FILE or --verses FILE.");
            else if (compares && result.GetResult(parts.take) is not null)
                result.AddError("--take belongs to --verses.");
            else if (asks)
                foreach (Option option in (Option[])[parts.minCosine, parts.routerMargin, parts.path])
                    if (result.GetResult(option) is not null)
                        result.AddError($"{option.Name} belongs to --reference.");
        });
        command.SetAction((parse, _) => parse.GetValue(parts.reference) is { } file
            ? Task.FromResult(parts.Compare(parse, file))
            : parts.AskAsync(parse, parse.GetValue(parts.verses)!));
        return command;
    }

    private int Compare(ParseResult parse, string file)
    {
        GenerationConfig? generation = null;
        bool fp8 = parse.GetValue(kvCache) == KvCacheFormat.Fp8;
        using Loaded<Qwen3Moe> loaded = model.Load(parse, (device, folder, load) =>
        {
            generation = GenerationConfig.Load(folder);
            return Qwen3Moe.Load(device, folder, load with { DequantizeToBf16 = parse.GetValue(dequantize) }, interrupts.Program);
        });
        ReferenceReport report = ProgressBar.Show("comparing", bar => ReferenceEvaluator.Evaluate(loaded.Model, file, new ReferenceOptions
        {
            MinCosine = parse.GetValue(minCosine) ?? (fp8 ? ReferenceOptions.DefaultMinCosineFp8Cache : ReferenceOptions.DefaultMinCosine),
            RouterMargin = parse.GetValue(routerMargin) ?? (fp8 || parse.GetValue(dequantize) ? ReferenceOptions.DefaultRouterMarginRounded : ReferenceOptions.DefaultRouterMargin),
            KvCache = parse.GetValue(kvCache),
            Path = parse.GetValue(path),
            StopTokenIds = generation!.StopTokenIds(loaded.Model.Config).ToHashSet(),
            Progress = bar.For<EvaluationProgress>(p => (p.Done, p.Total)),
        }, interrupts.Program));
        if (parse.GetValue(json))
            JsonOutput.WriteLine(new { model = loaded.Name, device = loaded.Device.Name, path = parse.GetValue(path).ToString().ToLowerInvariant(), report.Passed, report.MinCosine, report.Misses, report.Prompts });
        else
            EvalTables.Write(report);
        Console.Error.WriteLine(StatisticsLine.Of(loaded));
        foreach (string miss in report.Misses)
            Console.Error.WriteLine("missed: " + miss);
        return report.Passed ? ExitCodes.Ok : ExitCodes.Failure;
    }

    private async Task<int> AskAsync(ParseResult parse, string file)
    {
        using Loaded<LanguageModel> loaded = model.Load(parse, (device, folder, load) =>
            LanguageModel.Load(device, folder, load with { DequantizeToBf16 = parse.GetValue(dequantize) }, interrupts.Program));
        VerseReport report = await ProgressBar.ShowAsync("asking", bar => VerseEvaluator.EvaluateAsync(loaded.Model, file, new VerseOptions
        {
            Take = parse.GetValue(take),
            KvCache = parse.GetValue(kvCache),
            Progress = bar.For<EvaluationProgress>(p => (p.Done, p.Total)),
        }, interrupts.Program)).ConfigureAwait(false);
        if (parse.GetValue(json))
            JsonOutput.WriteLine(new { model = loaded.Name, device = loaded.Device.Name, exact = report.ExactCount, total = report.Verses.Count, report.Verses });
        else
            EvalTables.Write(report);
        Console.Error.WriteLine(StatisticsLine.Of(loaded));
        return ExitCodes.Ok;
    }
}
