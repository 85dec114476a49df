using Spectre.Console;

namespace GpuKit.Ilgpu.Cli;

/// <summary>A progress bar on stderr; nothing at all when stderr is no terminal.</summary>
internal sealed class ProgressBar
{
    private readonly ProgressTask? task;

    private ProgressBar(ProgressTask? task) => this.task = task;

    /// <summary>Runs work under a bar.</summary>
    public static T Show<T>(string title, Func<ProgressBar, T> work)
    {
        return Console.IsErrorRedirected
            ? work(new ProgressBar(null))
            : CreateProgress().Start(context => work(new ProgressBar(context.AddTask(Markup.Escape(title)))));
    }

    /// <summary>Runs work that awaits under a bar.</summary>
    public static Task<T> ShowAsync<T>(string title, Func<ProgressBar, Task<T>> work)
    {
        return Console.IsErrorRedirected
            ? work(new ProgressBar(null))
            : CreateProgress().StartAsync(context => work(new ProgressBar(context.AddTask(Markup.Escape(title)))));
    }

    /// <summary>A receiver of reports; each says how much of how much is done, and may say it in words too.</summary>
    public IProgress<T> For<T>(Func<T, (double Done, double Total)> measure, Func<T, string>? describe = null) => new Receiver<T>(this, measure, describe);

    private static Progress CreateProgress() =>
        AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(Console.Error) }).Progress().AutoClear(true);

    // Not System.Progress: that one posts to the thread pool, and late reports would come after the bar is gone.
    private sealed class Receiver<T>(ProgressBar bar, Func<T, (double Done, double Total)> measure, Func<T, string>? describe) : IProgress<T>
    {
        public void Report(T value)
        {
            if (bar.task is not { } task)
                return;
            (double done, double total) = measure(value);
            task.MaxValue = Math.Max(total, 1);
            task.Value = done;
            if (describe is not null)
                task.Description = Markup.Escape(describe(value));
        }
    }
}
