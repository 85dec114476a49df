using System.Text.RegularExpressions;

namespace GpuKit.Ilgpu.Runtime.Ptx;

/// <summary>Turns the text that ILGPU emits into the text that is loaded, and reads facts off it for the checks.</summary>
internal static partial class PtxText
{
    // Node ids ("phi_1234") and function names carry process-global counters; the entry point's name and the target ("sm_80") must survive.
    [GeneratedRegex(@"(?<![%\w.$])(?!Kernel_|sm_\d)([A-Za-z_$]\w*?_)(\d+)\b")]
    private static partial Regex NumberedNames();

    [GeneratedRegex(@"\b(bra|brx\.idx|call)\.uni\b")]
    private static partial Regex UniformBranches();

    [GeneratedRegex(@"^\.version \S+", RegexOptions.Multiline)]
    private static partial Regex VersionLine();

    [GeneratedRegex(@"^\.target \S+", RegexOptions.Multiline)]
    private static partial Regex TargetLine();

    // ILGPU knows no clusters; the directive makes every launch one of them.
    [GeneratedRegex(@"^\.maxntid .*$", RegexOptions.Multiline)]
    private static partial Regex MaxThreadsLine();

    [GeneratedRegex(@"(\.shared \.align )\d+")]
    private static partial Regex SharedAlignment();

    [GeneratedRegex(@"^\.visible \.func (?:\([^)]*\) )?(\w+)\((?:[^)]*)\)\s*(?:;|\{.*?^\})\s*", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex Functions();

    [GeneratedRegex(@"call\s+(?:\([^)]*\), )?(\w+)\b")]
    private static partial Regex Calls();

    // ILGPU passes the argument struct as one array of bytes.
    [GeneratedRegex(@"(\.param \.align )\d+( \.b8 (?<name>\w+)\[)")]
    private static partial Regex EntryParameter();

    [GeneratedRegex(@"(\.extern \.shared \.align )\d+")]
    private static partial Regex DynamicSharedAlignment();

    private const string ArgumentsPlaceholder = "KERNEL_ARGUMENTS";
    private const int TensorMapAlignmentBytes = 64, SwizzledTileAlignmentBytes = 1024;

    /// <summary>
    /// Shared memory is aligned to 128 bytes: bulk copies and swizzled tiles need it, and ILGPU only knows the
    /// alignment of the element type.
    /// </summary>
    private const int SharedAlignmentBytes = 128;

    /// <summary>The text that is loaded: retargeted, without unsound hints and dead functions, with canonical names.</summary>
    public static string Prepare(string ptx, PtxTarget target, int clusterBlocks = 1)
    {
        string text = TargetLine().Replace(VersionLine().Replace(ptx, $".version {VersionName(ptx, target)}"), $".target {target}");
        // ILGPU also marks branches on intrinsics' results as uniform; the hint is a promise that it cannot keep.
        text = UniformBranches().Replace(text, "$1");
        if (clusterBlocks > 1)
            text = MaxThreadsLine().Replace(text, $"$0\n.reqnctapercluster {clusterBlocks}, 1, 1", 1);
        text = SharedAlignment().Replace(text, "${1}" + SharedAlignmentBytes);
        return CanonicalNames(NameArguments(DropUncalledFunctions(text)));
    }

    // Tensor maps are passed by value and used by address: they and the tiles that they fill have alignments of their own.
    private static string NameArguments(string text)
    {
        if (!text.Contains(ArgumentsPlaceholder, StringComparison.Ordinal))
            return text;
        Match parameter = EntryParameter().Match(text);
        text = EntryParameter().Replace(text, "${1}" + TensorMapAlignmentBytes + "${2}", 1);
        text = DynamicSharedAlignment().Replace(text, "${1}" + SwizzledTileAlignmentBytes, 1);
        return text.Replace(ArgumentsPlaceholder, parameter.Groups["name"].Value, StringComparison.Ordinal);
    }

    // The architecture's, or that of an instruction which came later: other kernels still load on older drivers.
    private static string VersionName(string ptx, PtxTarget target)
    {
        int version = (target.Version.Major * 10) + target.Version.Minor;
        foreach ((string mnemonic, int newer) in PtxIntrinsics.NewerVersions)
            if (newer > version && ptx.Contains(mnemonic, StringComparison.Ordinal))
                version = newer;
        return $"{version / 10}.{version % 10}";
    }

    // Intrinsics leave an empty function behind each; only functions that are called are kept.
    private static string DropUncalledFunctions(string text)
    {
        var called = Calls().Matches(text).Select(m => m.Groups[1].Value).ToHashSet();
        return Functions().Replace(text, m => called.Contains(m.Groups[1].Value) ? m.Value : "");
    }

    // Renumbers in order of appearance: the same kernel has the same text in every process.
    private static string CanonicalNames(string text)
    {
        var numbers = new Dictionary<string, int>();
        return NumberedNames().Replace(text, m =>
        {
            if (!numbers.TryGetValue(m.Value, out int number))
                numbers.Add(m.Value, number = numbers.Count);
            return m.Groups[1].Value + number.ToString(System.Globalization.CultureInfo.InvariantCulture);
        });
    }

    /// <summary>Whether the text declares local memory (spilled structs, arrays indexed by variables).</summary>
    public static bool UsesLocalMemory(string text) => text.Contains(".local", StringComparison.Ordinal);

    /// <summary>Whether the text computes in float64.</summary>
    public static bool UsesDouble(string text) => Regex.IsMatch(text, @"\.f64\s+%fd");
}
