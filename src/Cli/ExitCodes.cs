namespace GpuKit.Ilgpu.Cli;

/// <summary>What the program's exit code says.</summary>
internal static class ExitCodes
{
    public const int Ok = 0;

    /// <summary>The work failed or was stopped by Ctrl-C, or an evaluation missed its bar.</summary>
    public const int Failure = 1;

    /// <summary>The command line asks for something that cannot be.</summary>
    public const int Usage = 2;
}
