namespace GpuKit.Ilgpu.Models;

/// <summary>
/// The weights of a model folder: one <c>model.safetensors</c>, or the shards that <c>model.safetensors.index.json</c> names.
/// Every file is opened and checked at once; tensor bytes are read from the map when they are asked for.
/// </summary>
/// <remarks>Spans die with <see cref="Dispose"/>. Reading from several threads is safe.</remarks>
public sealed class Checkpoint : IDisposable
{
    private const string SingleFile = "model.safetensors";

    private readonly Dictionary<string, (SafetensorsFile File, TensorInfo Info)> tensors = new(StringComparer.Ordinal);
    private readonly List<SafetensorsFile> files = [];

    private Checkpoint(string folder)
    {
        Folder = folder;
    }

    /// <summary>The folder's full path.</summary>
    public string Folder { get; }

    /// <summary>The names of all tensors, in no particular order.</summary>
    public IReadOnlyCollection<string> Names => tensors.Keys;

    /// <summary>Bytes of all tensors together.</summary>
    public long TotalBytes => files.Sum(f => f.DataBytes);

    /// <summary>Opens the weights of a folder.</summary>
    /// <param name="folder">A Hugging Face model folder. No link is followed out of it.</param>
    /// <exception cref="ModelFileException">
    /// Neither file is there, one is malformed, a shard's name is no bare file name, or index and shards disagree.
    /// </exception>
    public static Checkpoint Open(string folder)
    {
        var files = ModelFolder.Open(folder);
        var checkpoint = new Checkpoint(files.Path);
        try
        {
            if (files.Has(SingleFile))
            {
                checkpoint.Add(files, SingleFile);
            }
            else if (files.Has(ShardIndex.FileName))
            {
                checkpoint.AddShards(files);
            }
            else
            {
                throw new ModelFileException(SingleFile, $"not found in {files.Path}, nor is {ShardIndex.FileName}; one of them is needed");
            }

            return checkpoint;
        }
        catch
        {
            checkpoint.Dispose();
            throw;
        }
    }

    /// <summary>Whether there is a tensor of this name.</summary>
    /// <param name="name">The tensor's name.</param>
    public bool Contains(string name) => tensors.ContainsKey(name);

    /// <summary>Type, shape and place of a tensor.</summary>
    /// <param name="name">The tensor's name.</param>
    /// <exception cref="ModelFileException">There is no such tensor.</exception>
    public TensorInfo Info(string name) => Find(name).Info;

    /// <summary>All bytes of a tensor, row-major, little-endian.</summary>
    /// <param name="name">The tensor's name.</param>
    /// <exception cref="ModelFileException">There is no such tensor.</exception>
    /// <exception cref="ArgumentException">It is longer than a span can be (2 GB): read it in parts.</exception>
    /// <exception cref="ObjectDisposedException">The checkpoint is closed.</exception>
    public ReadOnlySpan<byte> Bytes(string name)
    {
        (SafetensorsFile file, TensorInfo info) = Find(name);
        return file.Bytes(info);
    }

    /// <summary>A part of a tensor's bytes.</summary>
    /// <param name="name">The tensor's name.</param>
    /// <param name="offset">The first byte wanted, counted from the tensor's start.</param>
    /// <param name="length">How many bytes.</param>
    /// <exception cref="ModelFileException">There is no such tensor.</exception>
    /// <exception cref="ArgumentException">The part leaves the tensor.</exception>
    /// <exception cref="ObjectDisposedException">The checkpoint is closed.</exception>
    public ReadOnlySpan<byte> Bytes(string name, long offset, int length)
    {
        (SafetensorsFile file, TensorInfo info) = Find(name);
        return file.Bytes(info, offset, length);
    }

    /// <summary>See <see cref="MappedFile.ReleasePages"/>.</summary>
    internal void ReleasePages() => files.ForEach(f => f.ReleasePages());

    /// <summary>Closes all files; spans into them die.</summary>
    public void Dispose() => files.ForEach(f => f.Dispose());

    private (SafetensorsFile File, TensorInfo Info) Find(string name) =>
        tensors.TryGetValue(name, out (SafetensorsFile File, TensorInfo Info) found)
            ? found
            : throw new ModelFileException(Path.GetFileName(Folder), $"has no tensor '{name}' ({tensors.Count} tensors in {Folder})");

    private void AddShards(ModelFolder folder)
    {
        Dictionary<string, string> map = ShardIndex.Read(folder);
        foreach (string shard in map.Values.Distinct(StringComparer.Ordinal))
        {
            foreach (string name in Add(folder, shard).Tensors.Keys)
            {
                if (!map.TryGetValue(name, out string? mapped) || mapped != shard)
                {
                    throw new ModelFileException(
                        ShardIndex.FileName, $"{shard} holds '{Excerpt.Of(name)}', which the index {(mapped is null ? "does not name" : $"places in {mapped}")}");
                }
            }
        }

        foreach ((string name, string shard) in map)
        {
            if (!tensors.ContainsKey(name))
            {
                throw new ModelFileException(ShardIndex.FileName, $"places '{Excerpt.Of(name)}' in {shard}, which does not hold it");
            }
        }
    }

    private SafetensorsFile Add(ModelFolder folder, string fileName)
    {
        var file = SafetensorsFile.Open(folder.PathOf(fileName), fileName);
        files.Add(file);
        foreach ((string name, TensorInfo info) in file.Tensors)
        {
            if (!tensors.TryAdd(name, (file, info)))
            {
                throw new ModelFileException(fileName, $"holds '{Excerpt.Of(name)}', which {Path.GetFileName(tensors[name].File.FilePath)} holds too");
            }
        }

        return file;
    }
}
