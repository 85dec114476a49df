using System.CommandLine;

namespace GpuKit.Ilgpu.Cli;

/// <summary><c>--kv-cache</c>.</summary>
internal static class KvCacheOption
{
    public static Option<KvCacheFormat> Create() => new("--kv-cache")
    {
        Description = "How keys and values are stored: bf16, or fp8 for half the memory with FP8's rounding (bf16).",
        HelpName = "bf16|fp8",
        CustomParser = result =>
        {
            switch (result.Tokens[0].Value)
            {
                case "bf16": return KvCacheFormat.Bf16;
                case "fp8": return KvCacheFormat.Fp8;
            }
            result.AddError($"--kv-cache must be bf16 or fp8; '{result.Tokens[0].Value}' is not.");
            return default;
        },
    };
}
