using System.CommandLine;
using System.Text;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Ptx;

namespace GpuKit.Ilgpu.Cli.Commands;

/// <summary><c>gpukit ptx</c>: the text of every kernel instance that an architecture would load. Needs no GPU.</summary>
internal static class PtxCommand
{
    private sealed record KernelFile(string Name, string File);

    private sealed record PtxResult(string Arch, int Count, IReadOnlyList<KernelFile> Kernels);

    public static Command Create(Interrupts interrupts)
    {
        string known = string.Join('|', PtxTarget.All);
        var arch = new Option<PtxTarget>("--arch")
        {
            Description = "The architecture.",
            HelpName = known,
            Required = true,
            CustomParser = result =>
            {
                string text = result.Tokens[0].Value;
                foreach (PtxTarget target in PtxTarget.All)
                    if (target.ToString() == text)
                        return target;
                result.AddError($"--arch must be one of {known}; '{text}' is not.");
                return default;
            },
        };
        var folder = new Option<string>("--out") { Description = "Folder to write to; made when it is not there.", HelpName = "DIR", Required = true };
        var part = new Option<string>("--kernel") { Description = "Only kernels whose name contains this.", HelpName = "PART", DefaultValueFactory = _ => "" };
        Option<bool> json = JsonOutput.CreateOption();
        var command = new Command("ptx", "Writes the PTX text of every kernel, one file each.") { arch, folder, part, json };
        command.SetAction(parse =>
        {
            PtxTarget target = parse.GetValue(arch);
            List<KernelFile> written = WriteAll((target, parse.GetValue(part)!), parse.GetRequiredValue(folder), interrupts.Program);
            if (parse.GetValue(json))
                JsonOutput.WriteLine(new PtxResult(target.ToString(), written.Count, written));
            else
                Console.Out.WriteLine($"{written.Count} kernels for {target} written to {parse.GetRequiredValue(folder)}");
            return ExitCodes.Ok;
        });
        return command;
    }

    private static List<KernelFile> WriteAll((PtxTarget Target, string Part) wanted, string folder, CancellationToken cancellation)
    {
        PtxTarget target = wanted.Target;
        KernelDefinition[] kernels = [.. KernelCatalog.For(target).Where(k => k.Name.Contains(wanted.Part, StringComparison.OrdinalIgnoreCase))];
        if (kernels.Length == 0)
            throw new ArgumentException($"No kernel for {target} has '{wanted.Part}' in its name.");
        Directory.CreateDirectory(folder);
        var names = new HashSet<string>(StringComparer.OrdinalIgnoreCase);
        return ProgressBar.Show($"compiling for {target}", report =>
        {
            IProgress<int> progress = report.For<int>(done => (done, kernels.Length));
            var written = new List<KernelFile>();
            foreach ((KernelDefinition kernel, _, string text) in PtxCompiler.CompileAll(kernels, [target]))
            {
                cancellation.ThrowIfCancellationRequested();
                string file = FileName(kernel.Name, names);
                File.WriteAllText(Path.Combine(folder, file), text);
                written.Add(new KernelFile(kernel.Name, file));
                progress.Report(written.Count);
            }
            return written;
        });
    }

    /// <summary>A name that every file system takes: <c>Gemv.Run&lt;Bf16,Vector&gt;</c> becomes <c>Gemv.Run-Bf16-Vector.ptx</c>.</summary>
    internal static string FileName(string kernel, HashSet<string> taken)
    {
        var name = new StringBuilder();
        foreach (char c in kernel)
            if (char.IsAsciiLetterOrDigit(c) || c is '.' or '_')
                name.Append(c);
            else if (name.Length > 0 && name[^1] != '-')
                name.Append('-');
        string stem = name.ToString().TrimEnd('-'), file = stem + ".ptx";
        for (int i = 2; !taken.Add(file); i++)
            file = $"{stem}-{i}.ptx";
        return file;
    }
}
