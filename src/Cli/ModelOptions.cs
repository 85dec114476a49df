using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli;

/// <summary>What a command opened: a device and a model on it.</summary>
/// <param name="Device">The device.</param>
/// <param name="Model">The model.</param>
/// <param name="Folder">Where it came from.</param>
/// <param name="LoadTime">From opening the device to the last weight.</param>
internal sealed record Loaded<TModel>(GpuDevice Device, TModel Model, string Folder, TimeSpan LoadTime) : IDisposable
    where TModel : IDisposable
{
    /// <summary>The folder's own name.</summary>
    public string Name => Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath(Folder)));

    public void Dispose()
    {
        Model.Dispose();
        Device.Dispose();
    }
}

/// <summary><c>--model</c> with the device that it is loaded on.</summary>
internal sealed class ModelOptions
{
    private readonly DeviceOptions device = new();

    private readonly Option<string?> model = new("--model")
    {
        Description = "Folder of a Hugging Face checkpoint; the built-in tiny-moe-fp8 when not given.",
        HelpName = "DIR",
    };

    public void AddTo(Command command)
    {
        command.Add(model);
        device.AddTo(command);
    }

    /// <summary>Opens the device and loads. The load function gets device, folder and options that report progress.</summary>
    public Loaded<TModel> Load<TModel>(ParseResult parse, Func<GpuDevice, string, LoadOptions, TModel> load)
        where TModel : IDisposable
    {
        string folder = ModelFolderLocator.Find(parse.GetValue(model));
        var clock = Stopwatch.StartNew();
        GpuDevice opened = device.Open(parse);
        try
        {
            string title = $"loading onto {opened.Name}";
            TModel loaded = ProgressBar.Show(title, report =>
                load(opened, folder, new LoadOptions { Progress = report.For<LoadProgress>(p => (p.LoadedBytes, p.TotalBytes), p => title + Describe(p)) }));
            return new Loaded<TModel>(opened, loaded, folder, clock.Elapsed);
        }
        catch
        {
            opened.Dispose();
            throw;
        }
    }

    private static string Describe(LoadProgress p)
    {
        string read = string.Create(CultureInfo.InvariantCulture, $": {p.LoadedBytes / 1e9:F2} of {p.TotalBytes / 1e9:F2} GB");
        return p.TimeLeft is { } left && p.BytesPerSecond > 0
            ? read + string.Create(CultureInfo.InvariantCulture, $", {p.BytesPerSecond / 1e9:F2} GB/s, {Math.Ceiling(left.TotalSeconds)} s left")
            : read;
    }
}
