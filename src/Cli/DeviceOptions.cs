using System.CommandLine;

namespace GpuKit.Ilgpu.Cli;

/// <summary><c>--device</c> and <c>--ordinal</c>.</summary>
internal sealed class DeviceOptions
{
    private readonly Option<DeviceKind> kind = new("--device")
    {
        Description = "auto (CUDA when there is a card, else the CPU), cuda or cpu.",
        HelpName = "auto|cuda|cpu",
        CustomParser = result =>
        {
            switch (result.Tokens[0].Value)
            {
                case "auto": return DeviceKind.Auto;
                case "cuda": return DeviceKind.Cuda;
                case "cpu": return DeviceKind.Cpu;
            }
            result.AddError($"--device must be auto, cuda or cpu; '{result.Tokens[0].Value}' is not.");
            return default;
        },
    };

    private readonly Option<int?> ordinal = Numbers.Whole("--ordinal", 0, "Which card, counted from 0.");

    public void AddTo(Command command)
    {
        command.Add(kind);
        command.Add(ordinal);
    }

    public GpuDevice Open(ParseResult parse) => GpuDevice.Open(parse.GetValue(kind), parse.GetValue(ordinal) ?? 0);
}
