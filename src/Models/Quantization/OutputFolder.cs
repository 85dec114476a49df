namespace GpuKit.Ilgpu.Models;

/// <summary>
/// A folder that appears whole or not at all: it is filled under another name beside its place and renamed at the end.
/// Disposed without that, it is removed.
/// </summary>
internal sealed class OutputFolder : IDisposable
{
    private readonly string target;
    private bool done;

    private OutputFolder(string target, string path) => (this.target, Path) = (target, path);

    /// <summary>Where files are written until <see cref="Complete"/>.</summary>
    public string Path { get; }

    /// <summary>The full path of a target, which must be new or empty, or may be replaced, and must not hold the source.</summary>
    /// <exception cref="ArgumentException">It may not be written to.</exception>
    public static string Check(string folder, string source, bool force)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(folder);
        string path = System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(folder));
        if (File.Exists(path))
            throw new ArgumentException($"{path} is a file; a folder to write to is needed.", nameof(folder));
        if (System.IO.Path.GetDirectoryName(path) is null)
            throw new ArgumentException($"{path} is the root of a disk; a folder below it is needed.", nameof(folder));
        if (!Directory.Exists(path))
            return path;
        if ((RealPath(source) + System.IO.Path.DirectorySeparatorChar).StartsWith(RealPath(path) + System.IO.Path.DirectorySeparatorChar, StringComparison.Ordinal))
            throw new ArgumentException($"{path} holds the model that is read; another folder is needed.", nameof(folder));
        if (!force && Directory.EnumerateFileSystemEntries(path).Any())
            throw new ArgumentException($"{path} is not empty; name another folder, or replace all that is in it by force.", nameof(folder));
        return path;
    }

    /// <summary>Creates the folder to fill.</summary>
    /// <exception cref="IOException">It cannot be created.</exception>
    public static OutputFolder Create(string target)
    {
        Directory.CreateDirectory(Parent(target));
        string path = Beside(target, "partial");
        Directory.CreateDirectory(path);
        return new OutputFolder(target, path);
    }

    /// <summary>Puts the folder in its place. What was there is removed after that, and stays when the move fails.</summary>
    public void Complete()
    {
        string? old = null;
        if (Directory.Exists(target))
            Directory.Move(target, old = Beside(target, "old"));
        try
        {
            Directory.Move(Path, target);
        }
        catch when (old is not null)
        {
            Directory.Move(old, target);
            throw;
        }
        done = true;
        if (old is not null)
            Directory.Delete(old, recursive: true);
    }

    public void Dispose()
    {
        if (!done && Directory.Exists(Path))
            Directory.Delete(Path, recursive: true);
    }

    /// <summary>The nearest folder above a target that is there.</summary>
    public static string ExistingParent(string target)
    {
        string parent = Parent(target);
        while (!Directory.Exists(parent))
            parent = Parent(parent);
        return parent;
    }

    private static string Parent(string path) => System.IO.Path.GetDirectoryName(path)!;

    // On the same disk, so that the move is a rename.
    private static string Beside(string target, string what) =>
        System.IO.Path.Combine(Parent(target), $".{System.IO.Path.GetFileName(target)}.{Guid.NewGuid():N}.{what}");

    private static string RealPath(string folder)
    {
        var info = new DirectoryInfo(System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(folder)));
        return info.ResolveLinkTarget(returnFinalTarget: true)?.FullName ?? info.FullName;
    }
}
