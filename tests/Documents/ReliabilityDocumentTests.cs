using System.Reflection;
using System.Text.RegularExpressions;
using GpuKit.Ilgpu.Tests.Fuzzing;

namespace GpuKit.Ilgpu.Tests.Documents;

/// <summary>docs/reliability.md names tests that exist and figures that the tests have.</summary>
public sealed partial class ReliabilityDocumentTests
{
    private static readonly Type[] TestClasses = [.. typeof(ReliabilityDocumentTests).Assembly.GetTypes().Where(t => t.Name.EndsWith("Tests", StringComparison.Ordinal))];

    [Fact]
    public void EveryTestThatItNamesExists()
    {
        Match[] names = [.. TestName().Matches(Document()).Cast<Match>()];
        Assert.InRange(names.Length, 30, int.MaxValue);
        Assert.All(names, name =>
        {
            Type[] classes = [.. TestClasses.Where(t => t.Name == name.Groups[1].Value)];
            Assert.True(classes.Length == 1, $"{name.Value}: {classes.Length} test classes have that name.");
            Assert.True(
                !name.Groups[2].Success || classes[0].GetMethod(name.Groups[2].Value) is { } method && method.GetCustomAttributes().Any(a => a is FactAttribute),
                $"{name.Value}: the class has no such test.");
        });
    }

    [Fact]
    public void EveryFuzzTestAndPropertyTestIsNamed()
    {
        string document = Document();
        string[] spaces = [typeof(FuzzRun).Namespace!, typeof(Properties.Property).Namespace!];
        Assert.All(TestClasses.Where(t => spaces.Contains(t.Namespace)), t => Assert.Contains($"`{t.Name}", document, StringComparison.Ordinal));
    }

    [Fact]
    public void TheFiguresAreThoseOfTheTests()
    {
        string figures = ReliabilityFigures.Render();
        Assert.True(Block("figures") == figures, $"docs/reliability.md has other figures; between its markers must stand:\n{figures}");
    }

    [Fact]
    public void EveryPlantedBugIsListedAsCaught()
    {
        string[] rows = [.. Block("planted-bugs").Split('\n').Where(line => line.StartsWith("| ", StringComparison.Ordinal)).Skip(2)];
        string[] bugs = [.. Directory.GetFiles(Path.Combine(Checkout(), "eng", "planted-bugs.d"), "*.patch").Order(StringComparer.Ordinal).Select(p => File.ReadLines(p).First()["Bug: ".Length..])];
        Assert.Equal(bugs, rows.Select(r => r.Split('|')[1].Trim()));
        Assert.All(rows, r => Assert.Matches(@"\| `\w+Tests\.\w+`", r));
    }

    [Fact]
    public void EveryPlantedBugStillApplies()
    {
        string[] patches = Directory.GetFiles(Path.Combine(Checkout(), "eng", "planted-bugs.d"), "*.patch");
        Assert.NotEmpty(patches);
        foreach (string patch in patches)
        {
            string source = "";
            foreach (string hunk in Hunk().Split(File.ReadAllText(patch).ReplaceLineEndings("\n")).Where(part => part.Length > 0))
            {
                // What the change replaces, as it stands in the file.
                string old = string.Concat(hunk.Split('\n').Where(line => line.Length > 0 && line[0] is ' ' or '-' && !line.StartsWith("--- ", StringComparison.Ordinal)).Select(line => line[1..] + "\n"));
                if (source.Length > 0)
                    Assert.True(source.Contains(old, StringComparison.Ordinal), $"{Path.GetFileName(patch)} does not apply any more.");
                if (Target().Match(hunk) is { Success: true } file)
                    source = File.ReadAllText(Path.Combine(Checkout(), file.Groups[1].Value)).ReplaceLineEndings("\n");
            }
            Assert.NotEmpty(source);
        }
    }

    private static string Document() => File.ReadAllText(Path.Combine(Checkout(), "docs", "reliability.md")).ReplaceLineEndings("\n");

    private static string Block(string marker)
    {
        string document = Document();
        string start = $"<!-- {marker} -->\n";
        int from = document.IndexOf(start, StringComparison.Ordinal) + start.Length;
        return document[from..document.IndexOf($"<!-- /{marker} -->", from, StringComparison.Ordinal)];
    }

    private static string Checkout()
    {
        DirectoryInfo? folder = new(AppContext.BaseDirectory);
        while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "GpuKit.Ilgpu.sln")))
            folder = folder.Parent;
        Assert.SkipWhen(folder is null, "The tests do not run inside a checkout.");
        return folder!.FullName;
    }

    [GeneratedRegex(@"`(\w+Tests)(?:\.(\w+))?`")]
    private static partial Regex TestName();

    [GeneratedRegex(@"^@@ .*\n", RegexOptions.Multiline)]
    private static partial Regex Hunk();

    [GeneratedRegex(@"^\+\+\+ b/(\S+)", RegexOptions.Multiline)]
    private static partial Regex Target();
}
