using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Cli;

/// <summary>
/// Ctrl-C: stops the answer that is running if there is one, else the program; when the program does not stop by itself,
/// the next Ctrl-C ends the process.
/// </summary>
internal sealed class Interrupts : IDisposable
{
    private readonly Lock gate = new();

    // Never disposed: a signal may still be on its way, and the source holds nothing but memory.
    private readonly CancellationTokenSource program = new();
    private readonly PosixSignalRegistration interrupt;
    private readonly PosixSignalRegistration terminate;
    private CancellationTokenSource? answer;

    public Interrupts()
    {
        interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, context => context.Cancel = CancelAnswer() || CancelProgram());
        terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, context => context.Cancel = CancelProgram());
    }

    /// <summary>Cancelled when the program shall end.</summary>
    public CancellationToken Program => program.Token;

    /// <summary>Starts an answer: until <see cref="EndAnswer"/>, Ctrl-C cancels this token and leaves the program running.</summary>
    public CancellationToken BeginAnswer()
    {
        lock (gate)
        {
            answer = CancellationTokenSource.CreateLinkedTokenSource(program.Token);
            return answer.Token;
        }
    }

    public void EndAnswer()
    {
        lock (gate)
        {
            // A cancelled source may still be calling back on another thread; it is left to the collector.
            if (answer is { IsCancellationRequested: false })
                answer.Dispose();
            answer = null;
        }
    }

    public void Dispose()
    {
        interrupt.Dispose();
        terminate.Dispose();
        EndAnswer();
    }

    private bool CancelAnswer()
    {
        lock (gate)
        {
            if (answer is null || answer.IsCancellationRequested)
                return false;
            _ = answer.CancelAsync();
            return true;
        }
    }

    private bool CancelProgram()
    {
        lock (gate)
        {
            if (program.IsCancellationRequested)
                return false;
            _ = program.CancelAsync();
            return true;
        }
    }
}
