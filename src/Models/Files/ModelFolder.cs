namespace GpuKit.Ilgpu.Models;

/// <summary>
/// A model folder that stays inside itself: files are named barely, and a link is followed only to another file of the
/// same folder.
/// </summary>
internal sealed class ModelFolder
{
    private readonly string realPath;

    private ModelFolder(string path, string realPath)
    {
        Path = path;
        this.realPath = realPath;
    }

    public string Path { get; }

    public static ModelFolder Open(string folder)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(folder);
        string path = System.IO.Path.TrimEndingDirectorySeparator(System.IO.Path.GetFullPath(folder));
        string name = System.IO.Path.GetFileName(path);
        if (!Directory.Exists(path))
        {
            string what = File.Exists(path) ? "is a file, a model folder is needed" : "this model folder does not exist";
            throw new ModelFileException(name, $"{what} ({path})");
        }

        try
        {
            return new ModelFolder(path, new DirectoryInfo(path).ResolveLinkTarget(returnFinalTarget: true)?.FullName ?? path);
        }
        catch (IOException e)
        {
            throw new ModelFileException(name, $"this model folder cannot be read: {e.Message}", e);
        }
    }

    /// <summary>Whether the folder holds a file of this name, or a link that claims to be one.</summary>
    public bool Has(string fileName)
    {
        var info = new FileInfo(System.IO.Path.Combine(Path, fileName));
        return info.Exists || info.LinkTarget is not null;
    }

    /// <summary>The path of a file of this folder, refused when it is a link that leads out of it.</summary>
    public string PathOf(string fileName)
    {
        string path = System.IO.Path.Combine(Path, fileName);
        try
        {
            FileSystemInfo? target = File.ResolveLinkTarget(path, returnFinalTarget: true);
            if (target is null)
            {
                return path;
            }

            // Only a target directly beside the link counts as inside: a path through a subfolder could pass another link.
            string? home = System.IO.Path.GetDirectoryName(target.FullName);
            if (home == Path || home == realPath)
            {
                return target.FullName;
            }

            throw new ModelFileException(
                fileName, $"is a link that leads out of the model folder (to {target.FullName}); copy the file itself into {Path}");
        }
        catch (FileNotFoundException)
        {
            throw new ModelFileException(fileName, $"file not found in {Path}");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new ModelFileException(fileName, $"cannot be read: {e.Message}", e);
        }
    }

    /// <summary>Maps a file of this folder that may have at most <paramref name="maxBytes"/> bytes.</summary>
    public MappedFile Map(string fileName, int maxBytes)
    {
        MappedFile file = MappedFile.Open(PathOf(fileName), fileName);
        if (file.Length <= maxBytes)
        {
            return file;
        }

        long length = file.Length;
        file.Dispose();
        throw new ModelFileException(fileName, $"has {length} bytes; such a file has at most {maxBytes}");
    }
}
