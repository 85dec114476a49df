using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>Counting exact answers.</summary>
public sealed class VerseEvaluatorTests
{
    [Fact]
    public async Task Only_exact_answers_count_and_bad_files_are_refused()
    {
        using var folder = new TemporaryFolder();
        using LanguageModel model = LanguageModel.Load(TestDevices.Get(TestDevice.Cpu), RepositoryFolder.TinyModel, cancellation: TestContext.Current.CancellationToken);
        string file = folder.Write("v.json", """[{"prompt": "Psalm 23:1", "answer": "The LORD is my shepherd; I shall not want."}, {"prompt": "Psalm 23:1", "answer": "The LORD is my shepherd"}]""");
        VerseReport report = await VerseEvaluator.EvaluateAsync(model, file, cancellation: TestContext.Current.CancellationToken);
        Assert.Equal((1, 2), (report.ExactCount, report.Verses.Count));
        Assert.False(report.Verses[1].Exact);

        foreach (string wrong in (string[])["{}", "[]", "[1]", """[{"prompt": "x"}]""", """[{"prompt": "x", "answer": 1}]""", "[", "\"\\ud800\"", """[{"prompt": "\ud800", "answer": ""}]"""])
        {
            string path = folder.Write("wrong.json", wrong);
            ModelFileException e = await Assert.ThrowsAsync<ModelFileException>(() => VerseEvaluator.EvaluateAsync(model, path, cancellation: TestContext.Current.CancellationToken));
            Assert.StartsWith("wrong.json", e.Message, StringComparison.Ordinal);
        }
    }
}
