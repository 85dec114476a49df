using System.Globalization;

namespace GpuKit.Ilgpu.Bench;

/// <summary>On which tiles products of many rows are timed.</summary>
internal enum TimedTiles
{
    /// <summary>The library's choice.</summary>
    Plan,

    /// <summary>What it would choose on a card without kernels of its own.</summary>
    Portable,

    /// <summary>Every one that there is.</summary>
    All,

    /// <summary>Every way to split K of 17 to 256 rows.</summary>
    Split,
}

/// <summary>The command line of a benchmark.</summary>
internal sealed record BenchOptions
{
    public DeviceKind Device { get; private init; }

    public int Ordinal { get; private init; }

    /// <summary>The folder of the model; asked for only by benchmarks that load one, since the default needs a repository.</summary>
    public string Model => ModelFolder ?? Path.Combine(RepositoryRoot(), "models", "tiny-moe-fp8");

    public int Tokens { get; private init; } = 256;

    /// <summary>Positions of the cache that a sequence's decoding is timed from; empty for a short prompt's.</summary>
    public IReadOnlyList<int> Contexts { get; private init; } = [];

    /// <summary>Tokens of the prompts that are timed.</summary>
    public IReadOnlyList<int> Prompts { get; private init; } = [32, 512, 2048, 8192];

    /// <summary>Numbers of sequences that are decoded together; empty for one sequence by itself.</summary>
    public IReadOnlyList<int> Batches { get; private init; } = [];

    /// <summary>Whether every kernel of a step, or of a prompt, is timed by itself.</summary>
    public bool Kernels { get; private init; }

    /// <summary>Whether all tokens are decoded in one run that is watched for growth.</summary>
    public bool Long { get; private init; }

    /// <summary>How sessions that decode or prefill store keys and values.</summary>
    public KvCacheFormat KvCache { get; private init; }

    public int Runs { get; private init; } = 5;

    /// <summary>How long a soak runs.</summary>
    public int Minutes { get; private init; } = 9;

    /// <summary>Rows of x that products are timed with.</summary>
    public IReadOnlyList<int> Rows => GivenRows ?? [1, 8, 16];

    /// <summary>The same of products of many rows.</summary>
    public IReadOnlyList<int> GemmRows => GivenRows ?? [16, 32, 64, 128, 256, 512, 1024, 2048, 8192];

    /// <summary>Tokens that a layer of experts is timed with.</summary>
    public IReadOnlyList<int> MoeRows => GivenRows ?? [1, 8, 64, 2048];

    /// <summary>Columns and rows of the weights that products are timed with.</summary>
    public IReadOnlyList<(int K, int N)> Shapes => GivenShapes ??
    [
        (2048, 768), (768, 2048), (2048, 2048), (2048, 5120), (2048, 8192), (4096, 4096),
        (4096, 14336), (14336, 4096), (8192, 8192), (8192, 29568), (29568, 8192), (2048, 151936),
    ];

    /// <summary>The same of products of many rows.</summary>
    public IReadOnlyList<(int K, int N)> GemmShapes => GivenShapes ?? [(4096, 14336), (14336, 4096), (8192, 8192), (2048, 5120)];

    /// <summary>On which tiles products of many rows are timed.</summary>
    public TimedTiles Tiles { get; private init; }

    /// <summary>Numbers of parts that K is split into where ways to do so are timed; empty for the plan's.</summary>
    public IReadOnlyList<int> Parts { get; private init; } = [];

    /// <summary>What is multiplied with what.</summary>
    public IReadOnlyList<GemvProduct> Products { get; private init; } = GemvProduct.All;

    /// <summary>Where results are appended; null when they are only printed.</summary>
    public string? ResultFolder { get; private init; }

    /// <summary>Only compare what a report would write.</summary>
    public bool Check { get; private init; }

    private string? ModelFolder { get; init; }

    /// <summary>The model that was named, or another one than the repository's.</summary>
    public string ModelOr(string other) => ModelFolder ?? other;

    private IReadOnlyList<int>? GivenRows { get; init; }

    private IReadOnlyList<(int K, int N)>? GivenShapes { get; init; }

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
            if (option == "--kernels")
            {
                options = options with { Kernels = true };
                continue;
            }
            if (option == "--long")
            {
                options = options with { Long = true };
                continue;
            }
            string value = ++i < args.Length ? args[i] : throw new ArgumentException($"{option} needs a value.");
            options = option switch
            {
                "--device" => options with { Device = Enum.Parse<DeviceKind>(value, ignoreCase: true) },
                "--ordinal" => options with { Ordinal = Number(option, value, 0) },
                "--model" => options with { ModelFolder = value },
                "--kv-cache" => options with { KvCache = value is "bf16" or "fp8" ? Enum.Parse<KvCacheFormat>(value, ignoreCase: true) : throw new ArgumentException($"--kv-cache is bf16 or fp8, not '{value}'.") },
                "--tokens" => options with { Tokens = Number(option, value, 2) },
                "--runs" => options with { Runs = Number(option, value, 1) },
                "--minutes" => options with { Minutes = Number(option, value, 1) },
                "--rows" => options with { GivenRows = [.. value.Split(',').Select(v => Number(option, v, 1)).Distinct()] },
                "--context" => options with { Contexts = [.. value.Split(',').Select(v => Number(option, v, 2)).Distinct()] },
                "--prompts" => options with { Prompts = [.. value.Split(',').Select(v => Number(option, v, 1)).Distinct()] },
                "--batch" => options with { Batches = [.. value.Split(',').Select(v => Number(option, v, 1)).Distinct()] },
                "--formats" => options with { Products = [.. value.Split(',').Select(Product).Distinct()] },
                "--shapes" => options with { GivenShapes = [.. value.Split(',').Select(Shape).Distinct()] },
                "--tiles" => options with { Tiles = value is "plan" or "portable" or "all" or "split" ? Enum.Parse<TimedTiles>(value, ignoreCase: true) : throw new ArgumentException($"--tiles is plan, portable, all or split, not '{value}'.") },
                "--parts" => options with { Parts = [.. value.Split(',').Select(v => Number(option, v, 1)).Distinct()] },
                "--out" => options with { ResultFolder = value },
                _ => throw new ArgumentException($"There is no option {option}."),
            };
        }
        return options;
    }

    private static GemvProduct Product(string name)
    {
        foreach (GemvProduct product in GemvProduct.All)
            if (product.Name.Equals(name, StringComparison.OrdinalIgnoreCase))
                return product;
        throw new ArgumentException($"--formats has no '{name}'; there are {string.Join(", ", GemvProduct.All.Select(p => p.Name))}.");
    }

    // Codes and scales are filled in whole 32-bit words.
    private static (int K, int N) Shape(string text)
    {
        string[] sides = text.Split('x');
        if (sides.Length == 2 && int.TryParse(sides[0], NumberStyles.None, CultureInfo.InvariantCulture, out int k) && int.TryParse(sides[1], NumberStyles.None, CultureInfo.InvariantCulture, out int n)
            && k > 0 && n > 0 && k % 16 == 0 && n % 4 == 0)
            return (k, n);
        throw new ArgumentException($"--shapes needs KxN, K a multiple of 16 and N of 4, as in 4096x14336; not '{text}'.");
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
