using System.IO.MemoryMappedFiles;
using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// A read-only memory map of one regular file. Weights larger than memory stay on disk until they are read, and a hostile
/// header of 100 MB costs no managed memory.
/// </summary>
internal sealed unsafe partial class MappedFile : IDisposable
{
    private const int MadviseDontNeed = 4;

    private readonly MemoryMappedFile map;
    private readonly MemoryMappedViewAccessor view;
    private byte* start;

    private MappedFile(MemoryMappedFile map, MemoryMappedViewAccessor view, long length)
    {
        this.map = map;
        this.view = view;
        Length = length;
        view.SafeMemoryMappedViewHandle.AcquirePointer(ref start);
        start += view.PointerOffset;
    }

    public long Length { get; }

    /// <summary>Maps a file; whatever prevents it is a <see cref="ModelFileException"/> under <paramref name="fileName"/>.</summary>
    public static MappedFile Open(string path, string fileName)
    {
        try
        {
            var info = new FileInfo(path);
            if (!info.Exists)
            {
                throw new ModelFileException(
                    fileName,
                    Directory.Exists(path) ? $"is a folder, a file is needed ({path})" : $"file not found ({path})");
            }

            // Pipes and devices report length 0. Opening a pipe would wait for a writer for ever, so the length comes first.
            if (new FileInfo(info.ResolveLinkTarget(returnFinalTarget: true)?.FullName ?? path).Length == 0)
            {
                throw new ModelFileException(fileName, $"is empty or not a regular file ({path})");
            }

            return Map(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            throw new ModelFileException(fileName, $"cannot be read: {e.Message}", e);
        }
    }

    public ReadOnlySpan<byte> Span(long offset, int length)
    {
        ObjectDisposedException.ThrowIf(start == null, this);
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, Length - length, nameof(offset));
        return new ReadOnlySpan<byte>(start + offset, length);
    }

    /// <summary>
    /// Pages read so far no longer count as this process's memory; spans stay valid, and what is read again comes from the system's cache. A hint,
    /// on Linux: elsewhere the system takes pages back by itself only.
    /// </summary>
    public void ReleasePages()
    {
        ObjectDisposedException.ThrowIf(start == null, this);
        if (OperatingSystem.IsLinux())
            _ = Madvise(start, (nuint)Length, MadviseDontNeed);
    }

    public void Dispose()
    {
        if (start == null)
        {
            return;
        }

        start = null;
        view.SafeMemoryMappedViewHandle.ReleasePointer();
        view.Dispose();
        map.Dispose();
    }

    [LibraryImport("libc", EntryPoint = "madvise")]
    [DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static partial int Madvise(void* address, nuint length, int advice);

    private static MappedFile Map(string path)
    {
        var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read);
        MemoryMappedFile? map = null;
        try
        {
            long length = stream.Length;
            map = MemoryMappedFile.CreateFromFile(
                stream, mapName: null, capacity: 0, MemoryMappedFileAccess.Read, HandleInheritability.None, leaveOpen: false);
            return new MappedFile(map, map.CreateViewAccessor(0, length, MemoryMappedFileAccess.Read), length);
        }
        catch
        {
            map?.Dispose();
            stream.Dispose();
            throw;
        }
    }
}
