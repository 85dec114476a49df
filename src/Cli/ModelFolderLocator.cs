using GpuKit.Ilgpu.Models;

namespace GpuKit.Ilgpu.Cli;

/// <summary>Finds the model that is used when none is named: beside the program, else in the repository it was built in.</summary>
internal static class ModelFolderLocator
{
    private const string Solution = "GpuKit.Ilgpu.sln";

    private static readonly string Default = Path.Combine("models", "tiny-moe-fp8");

    public static string Find(string? named)
    {
        if (named is not null)
            return named;
        string beside = Path.Combine(AppContext.BaseDirectory, Default);
        if (IsModel(beside))
            return beside;
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
            if (File.Exists(Path.Combine(folder.FullName, Solution)) && IsModel(Path.Combine(folder.FullName, Default)))
                return Path.Combine(folder.FullName, Default);
        throw new ModelFileException(Default, $"is neither beside the program ({AppContext.BaseDirectory}) nor in a repository above it; name a model with --model");
    }

    private static bool IsModel(string folder) => File.Exists(Path.Combine(folder, "config.json"));
}
