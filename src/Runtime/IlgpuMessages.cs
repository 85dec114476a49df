using System.Collections.Concurrent;
using System.Globalization;
using System.Resources;
using System.Runtime.CompilerServices;
using ILGPU;

namespace GpuKit.Ilgpu.Runtime;

/// <summary>Keeps the messages of ILGPU's assertions, each looked up once.</summary>
/// <remarks>
/// On the CPU, ILGPU asserts at every question for an index or a size of the launch and passes the message, which it reads from its resources whether
/// or not it is needed: without this, that is a tenth and more of the time of a kernel.
/// </remarks>
internal static class IlgpuMessages
{
    /// <summary>Puts the kept messages into the place of ILGPU's resources; again, it does nothing. Whether they are there: an ILGPU that keeps its texts elsewhere is left as it is.</summary>
    public static bool Keep()
    {
        try
        {
            if (Errors(null) is not Messages)
                Errors(null) = new Messages("ILGPU.Resources.ErrorMessages");
            if (RuntimeErrors(null) is not Messages)
                RuntimeErrors(null) = new Messages("ILGPU.Resources.RuntimeErrorMessages");
            return true;
        }
        catch (Exception e) when (e is MissingFieldException or TypeLoadException)
        {
            return false;
        }
    }

    [UnsafeAccessor(UnsafeAccessorKind.StaticField, Name = "resourceMan")]
    private static extern ref ResourceManager? Errors([UnsafeAccessorType("ILGPU.Resources.ErrorMessages, ILGPU")] object? type);

    [UnsafeAccessor(UnsafeAccessorKind.StaticField, Name = "resourceMan")]
    private static extern ref ResourceManager? RuntimeErrors([UnsafeAccessorType("ILGPU.Resources.RuntimeErrorMessages, ILGPU")] object? type);

    private sealed class Messages(string name) : ResourceManager(name, typeof(Context).Assembly)
    {
        private readonly ConcurrentDictionary<string, string?> known = new(StringComparer.Ordinal);

        // The same literal comes nearly always.
        private Entry? last;

        public override string? GetString(string name, CultureInfo? culture)
        {
            // The texts exist in one language.
            Entry? entry = last;
            if (entry is null || !ReferenceEquals(entry.Name, name))
                last = entry = new Entry(name, known.GetOrAdd(name, static (asked, all) => all.Read(asked), this));
            return entry.Text;
        }

        private string? Read(string asked) => base.GetString(asked, CultureInfo.InvariantCulture);

        private sealed record Entry(string Name, string? Text);
    }
}
