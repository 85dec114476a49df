using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli.Commands;

/// <summary><c>gpukit quantize</c>: a checkpoint in another weight format.</summary>
internal sealed class QuantizeCommand
{
    private readonly Option<CheckpointFormat> format = new("--format")
    {
        Description = "How the linear layers are stored.",
        HelpName = CheckpointFormat.Names,
        Required = true,
        CustomParser = result =>
        {
            string name = result.Tokens[0].Value;
            if (CheckpointFormat.All.FirstOrDefault(f => f.Name == name) is { } found)
                return found;
            result.AddError($"--format must be one of {CheckpointFormat.Names}; '{name}' is not.");
            return null!;
        },
    };

    private readonly Option<string?> model = new("--model") { Description = "Folder of the checkpoint to read; the built-in tiny-moe-fp8 when not given.", HelpName = "DIR" };
    private readonly Option<string> target = new("--out") { Description = "Folder to write; it appears when it is complete.", HelpName = "DIR", Required = true };
    private readonly Option<bool> force = new("--force") { Description = "Replace the folder and all that is in it." };
    private readonly DeviceOptions device = new();
    private readonly Option<bool> json = JsonOutput.CreateOption();
    private readonly Interrupts interrupts;

    private QuantizeCommand(Interrupts interrupts) => this.interrupts = interrupts;

    public static Command Create(Interrupts interrupts)
    {
        var parts = new QuantizeCommand(interrupts);
        var command = new Command("quantize", "Writes a checkpoint in another weight format: a complete Hugging Face folder.") { parts.model, parts.format, parts.target, parts.force };
        parts.device.AddTo(command);
        command.Add(parts.json);
        command.SetAction(parts.Run);
        return command;
    }

    private int Run(ParseResult parse)
    {
        string source = ModelFolderLocator.Find(parse.GetValue(model));
        CheckpointFormat chosen = parse.GetRequiredValue(format);
        using GpuDevice opened = device.Open(parse);
        var clock = Stopwatch.StartNew();
        QuantizeReport report = ProgressBar.Show($"to {chosen.Name}", bar => CheckpointQuantizer.Quantize(source, parse.GetRequiredValue(target), chosen, new QuantizeOptions
        {
            // Emulated kernels only take longer than the host's own loops.
            Device = opened.IsCuda ? opened : null,
            Force = parse.GetValue(force),
            Progress = bar.For<QuantizeProgress>(p => (p.Bytes, p.TotalBytes), p => Describe(p, clock.Elapsed)),
        }, interrupts.Program));
        double seconds = clock.Elapsed.TotalSeconds;
        if (parse.GetValue(json))
            JsonOutput.WriteLine(new { model = source, format = chosen.Name, device = opened.IsCuda ? opened.Name : "host", report.Folder, report.Tensors, report.Converted, report.SourceBytes, report.Bytes, report.Shards, second_quantization = report.IsSecondQuantization, seconds });
        else
            Console.Out.WriteLine(Invariant($"{report.Folder}: {chosen.Name}, {report.Converted} of {report.Tensors} tensors converted, {report.SourceBytes} bytes of weights have become {report.Bytes}"));
        if (report.IsSecondQuantization)
            Console.Error.WriteLine("note: the source was quantised already; this is a second quantisation, and both losses add up");
        Console.Error.WriteLine(Invariant($"quantised on {(opened.IsCuda ? opened.Name : "the host")} in {seconds:F2} s, {report.Bytes / seconds / 1e9:F2} GB/s written"));
        return ExitCodes.Ok;
    }

    private static string Describe(QuantizeProgress p, TimeSpan elapsed) =>
        Invariant($"{p.Tensors} of {p.TotalTensors} tensors, {p.Bytes / 1e9:F2} of {p.TotalBytes / 1e9:F2} GB, {p.Bytes / 1e9 / Math.Max(elapsed.TotalSeconds, 1e-3):F2} GB/s");

    private static string Invariant(FormattableString text) => text.ToString(CultureInfo.InvariantCulture);
}
