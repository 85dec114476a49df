using System.Globalization;

namespace GpuKit.Ilgpu.Bench;

/// <summary>The command line of a benchmark.</summary>
internal sealed record BenchOptions
{
    public DeviceKind Device { get; private init; }

    public int Ordinal { get; private init; }

    public string Model { get; private init; } = "";

    public int Tokens { get; private init; } = 256;

    public int Runs { get; private init; } = 5;

    /// <summary>Rows of x that products are timed with.</summary>
    public IReadOnlyList<int> Rows { get; private init; } = [1, 8, 16];

    /// <summary>Where results are appended; null when they are only printed.</summary>
    public string? ResultFolder { get; private init; }

    /// <summary>Only compare what a report would write.</summary>
    public bool Check { get; private init; }

    public GpuDevice OpenDevice() => GpuDevice.Open(Device, Ordinal);

    public static BenchOptions Parse(string[] args)
    {
        var options = new BenchOptions();
        for (int i = 0; i < args.Length; i++)
        {
            string option = args[i];
            if (option == "--write")
            {
                options = options with { ResultFolder = options.ResultFolder ?? Path.Combine(RepositoryRoot(), "docs", "results") };
                continue;
            }
            if (option == "--check")
            {
                options = options with { Check = true };
                continue;
            }
            string value = ++i < args.Length ? args[i] : throw new ArgumentException($"{option} needs a value.");
            options = option switch
            {
                "--device" => options with { Device = Enum.Parse<DeviceKind>(value, ignoreCase: true) },
                "--ordinal" => options with { Ordinal = Number(option, value, 0) },
                "--model" => options with { Model = value },
                "--tokens" => options with { Tokens = Number(option, value, 2) },
                "--runs" => options with { Runs = Number(option, value, 1) },
                "--rows" => options with { Rows = [.. value.Split(',').Select(v => Number(option, v, 1))] },
                "--out" => options with { ResultFolder = value },
                _ => throw new ArgumentException($"There is no option {option}."),
            };
        }
        return options.Model.Length > 0 ? options : options with { Model = Path.Combine(RepositoryRoot(), "models", "tiny-moe-fp8") };
    }

    private static int Number(string option, string value, int least) =>
        int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number >= least
            ? number
            : throw new ArgumentException($"{option} needs a number of at least {least}, not '{value}'.");

    // The program runs from the repository's artifacts, or published into a checkout.
    public static string RepositoryRoot()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
            if (File.Exists(Path.Combine(folder.FullName, "GpuKit.Ilgpu.sln")))
                return folder.FullName;
        throw new ArgumentException($"There is no repository above {AppContext.BaseDirectory}; name folders with --model and --out.");
    }
}
