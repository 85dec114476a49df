using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli.Commands;

/// <summary><c>gpukit synth</c>: a model of random weights, on the device or as a checkpoint.</summary>
internal sealed class SynthCommand
{
    private readonly Option<string?> like = new("--like") { Description = "Shape of a published model.", HelpName = string.Join('|', KnownConfigs.Names) };
    private readonly Option<FileInfo?> config = new("--config") { Description = "Or a config.json.", HelpName = "FILE" };
    private readonly Option<int?> layers = new("--layers") { Description = "Layers, where fewer than the shape's will do.", HelpName = "N" };
    private readonly Option<ulong> seed = new("--seed") { Description = "Of the random numbers.", HelpName = "S", DefaultValueFactory = _ => 1 };
    private readonly Option<string?> target = new("--out") { Description = "Folder to write; without it the model is only made on the device.", HelpName = "DIR" };
    private readonly DeviceOptions device = new();
    private readonly Option<bool> json = JsonOutput.CreateOption();
    private readonly Interrupts interrupts;

    private SynthCommand(Interrupts interrupts) => this.interrupts = interrupts;

    public static Command Create(Interrupts interrupts)
    {
        var parts = new SynthCommand(interrupts);
        var command = new Command("synth", "Makes a model of random weights, for measurements: no tokenizer, no sense.") { parts.like, parts.config, parts.layers, parts.seed, parts.target };
        parts.device.AddTo(command);
        command.Add(parts.json);
        command.Validators.Add(result =>
        {
            if (result.GetValue(parts.like) is null == result.GetValue(parts.config) is null)
                result.AddError("--like or --config is needed, and not both.");
        });
        command.SetAction(parts.Run);
        return command;
    }

    private int Run(ParseResult parse)
    {
        JsonObject shape = Shape(parse);
        ulong number = parse.GetValue(seed);
        using GpuDevice opened = device.Open(parse);
        var clock = Stopwatch.StartNew();
        string? folder = parse.GetValue(target);
        long bytes = folder is null
            ? Make(opened, shape, number)
            : ProgressBar.Show("synth", bar => SyntheticCheckpoint.Write(opened, shape, number, folder, bar.For<QuantizeProgress>(p => (p.Bytes, p.TotalBytes), p => $"{p.Tensors} of {p.TotalTensors} tensors"), interrupts.Program));
        double seconds = clock.Elapsed.TotalSeconds;
        if (parse.GetValue(json))
            JsonOutput.WriteLine(new { device = opened.Name, folder, seed = number, bytes, seconds });
        else
            Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{folder ?? opened.Name}: {bytes} bytes of random weights in {seconds:F2} s"));
        return ExitCodes.Ok;
    }

    private static long Make(GpuDevice device, JsonObject shape, ulong seed)
    {
        using Qwen3Moe model = Qwen3Moe.Synthesize(device, Qwen3MoeConfig.Parse(JsonSerializer.SerializeToUtf8Bytes(shape)), seed);
        return model.WeightBytes;
    }

    private JsonObject Shape(ParseResult parse)
    {
        JsonObject shape = parse.GetValue(like) is { } name ? KnownConfigs.Json(name) : Read(parse.GetValue(config)!);
        if (parse.GetValue(layers) is { } count)
        {
            shape["num_hidden_layers"] = count;
            if (shape["mlp_only_layers"] is JsonArray dense)
                shape["mlp_only_layers"] = new JsonArray([.. dense.Select(l => (int)l!).Where(l => l < count).Select(l => JsonValue.Create(l))]);
        }
        return shape;
    }

    private static JsonObject Read(FileInfo file)
    {
        try
        {
            return JsonNode.Parse(File.ReadAllBytes(file.FullName)) as JsonObject ?? throw new ModelFileException(file.Name, "is no JSON object");
        }
        catch (JsonException e)
        {
            throw new ModelFileException(file.Name, "is no JSON: " + e.Message, e);
        }
    }
}
