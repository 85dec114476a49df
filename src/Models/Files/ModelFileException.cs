namespace GpuKit.Ilgpu.Models;

/// <summary>
/// Something in a model folder is missing, malformed or not supported. The message starts with the name of the file, says
/// what is wrong and where, and what would be right. It is the only exception that reading a model folder throws for what
/// the folder holds; mistakes of the caller are <see cref="ArgumentException"/>s.
/// </summary>
public sealed class ModelFileException : Exception
{
    /// <summary>Creates the exception with the message <c>fileName: problem</c>.</summary>
    /// <param name="fileName">The file (or folder) that is wrong, without its path.</param>
    /// <param name="problem">What is wrong, where in the file, and what would be right.</param>
    /// <param name="inner">The exception that revealed it, if any.</param>
    public ModelFileException(string fileName, string problem, Exception? inner = null)
        : base($"{fileName}: {problem}", inner)
    {
        FileName = fileName;
    }

    /// <summary>The file (or folder) that is wrong, without its path.</summary>
    public string FileName { get; }
}
