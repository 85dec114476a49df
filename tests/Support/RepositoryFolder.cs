namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>
/// Where models and test data lie: beside the test program when it was published with them, else in the repository that it
/// was built in.
/// </summary>
internal static class RepositoryFolder
{
    public static string Root { get; } = Find();

    public static string TinyModel => Path.Combine(Root, "models", "tiny-moe-fp8");

    public static string TestData(string name)
    {
        string beside = Path.Combine(Root, "Data", name);
        return Directory.Exists(beside) ? beside : Path.Combine(Root, "tests", "Data", name);
    }

    private static string Find()
    {
        // The program's own copy of the model, which lies beside the tests too, has no reference.
        if (File.Exists(Path.Combine(AppContext.BaseDirectory, "models", "tiny-moe-fp8", "reference.safetensors")))
        {
            return AppContext.BaseDirectory;
        }

        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "GpuKit.Ilgpu.sln")))
            {
                return folder.FullName;
            }
        }

        throw new DirectoryNotFoundException($"neither models beside {AppContext.BaseDirectory} nor GpuKit.Ilgpu.sln above it");
    }
}
