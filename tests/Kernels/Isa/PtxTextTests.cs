using System.Reflection;
using System.Text.RegularExpressions;
using GpuKit.Ilgpu.Kernels.Isa;
using GpuKit.Ilgpu.Runtime.Ptx;
using ILGPU;
using ILGPU.Backends.EntryPoints;
using ILGPU.Backends.PTX;
using ILGPU.IR.Intrinsics;
using ILGPU.Runtime;
using ILGPU.Runtime.Cuda;
using Xunit;
using Group = ILGPU.Group;

namespace GpuKit.Ilgpu.Tests.Kernels.Isa;

public sealed partial class PtxTextTests
{
    private const BindingFlags Static = BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic;

    public static TheoryData<string, string> Instructions => new(
        from type in typeof(PtxAttribute).Assembly.GetTypes()
        from method in type.GetMethods(Static)
        where method.IsDefined(typeof(PtxAttribute))
        select (type.FullName!, method.Name));

    [Theory]
    [MemberData(nameof(Instructions))]
    public void Placeholders_match_the_signature(string type, string name)
    {
        MethodInfo method = typeof(PtxAttribute).Assembly.GetType(type)!.GetMethod(name, Static)!;
        var attribute = method.GetCustomAttribute<PtxAttribute>()!;
        string text = PtxRepetition.Expand(attribute.Text).Replace("%%", "", StringComparison.Ordinal);
        ParameterInfo[] parameters = method.GetParameters();
        Assert.True(method.IsDefined(typeof(IntrinsicImplementationAttribute)));

        // Every argument is used, a reference as an address and nothing else as one; the result is written.
        var used = new HashSet<int>();
        foreach (Match match in Placeholder().Matches(text).Where(m => m.Groups["n"].Success))
        {
            int index = match.Groups["n"].Value[0] - '0';
            used.Add(index);
            Assert.Equal(parameters[index].ParameterType.IsByRef, match.Groups["kind"].Value is "g" or "s");
        }

        // A tensor map is named by its place among the kernel's arguments; as a value it is for the emulation.
        used.UnionWith(parameters.Where(p => p.ParameterType == typeof(TensorMap)).Select(p => p.Position));
        Assert.Equal(Enumerable.Range(0, parameters.Length), used.Order());
        Assert.Equal(method.ReturnType != typeof(void), text.Contains("%d", StringComparison.Ordinal));
        Assert.DoesNotContain('%', Placeholder().Replace(text, "").Replace("%d", "", StringComparison.Ordinal));

        // Statements end with a semicolon; temporaries are scoped, all but the accumulators that live as long as the kernel.
        Assert.Matches(text.StartsWith('{') ? @";\s*\}$" : @";\s*$", text);
        Assert.Equal(text.Contains(".reg", StringComparison.Ordinal) && method.Name != nameof(Wgmma.Declare), text.StartsWith('{'));
        if (attribute.Fallback is { } fallback)
        {
            MethodInfo other = method.DeclaringType!.GetMethod(fallback, Static)!;
            Assert.Equal(method.ReturnType, other.ReturnType);
            Assert.Equal(parameters.Select(p => p.ParameterType), other.GetParameters().Select(p => p.ParameterType));
        }
    }

    /// <summary>What of this folder is compiled for GPUs as plain C#, but for the fragment mapping.</summary>
    internal static void PlainCode(ArrayView<uint> input, ArrayView<uint> output, ArrayView<BFloat16> numbers)
    {
        int lane = Group.IdxX;
        uint word = input[lane];
        float x = Interop.IntAsFloat(word);
        output[lane] = Cvt.F16x2FromE4M3x2Software((ushort)word);
        output[lane + 32] = Cvt.E4M3x2LowToF16x2Software(word);
        output[lane + 64] = Cvt.E4M3x2HighToF16x2Software(word);
        output[lane + 96] = Cvt.E4M3x2Software(x, -x);
        output[lane + 128] = ((BFloat16)x).Bits;
        output[lane + 160] = Interop.FloatAsInt((float)BFloat16.FromBits((ushort)word) + Cvt.FromBf16((ushort)word));
        output[lane + 192] = BFloat16.IsNaN(BFloat16.FromBits((ushort)word)) ? 1u : 0u;
        BFloat16 number = numbers[lane];
        output[lane + 224] = number.Bits;
        numbers[lane] = (BFloat16)x;
    }

    [Fact]
    public void Plain_code_compiles_for_sm_80()
    {
        string text = Compile(nameof(PlainCode));
        Assert.DoesNotContain(".local", text, StringComparison.Ordinal);
        Assert.DoesNotContain(".f64", text, StringComparison.Ordinal);

        // Codes are unsigned: an arithmetic shift or a sign extension would smear their sign bit.
        Assert.DoesNotContain("shr.s32", text, StringComparison.Ordinal);
        Assert.DoesNotContain(".s16", text, StringComparison.Ordinal);
    }

    internal static void Fragments(ArrayView<uint> input, ArrayView<uint> output)
    {
        int lane = Group.IdxX;
        output[MmaFragment.ARow(lane, 1) * 16 + MmaFragment.AColumn(lane, 2)] = input[0];
        output[MmaFragment.BK(lane, 1) * 8 + MmaFragment.BColumn(lane)] = input[1];
        output[MmaFragment.CRow(lane, 3) * 8 + MmaFragment.CColumn(lane, 3)] = input[2];
    }

    [Fact]
    public void Fragment_mapping_compiles_for_sm_80() =>
        Assert.DoesNotContain(".local", Compile(nameof(Fragments)), StringComparison.Ordinal);

    private static string Compile(string name)
    {
        using Context context = Context.Create(builder => builder.Cuda().Optimize(OptimizationLevel.O1));
        CudaArchitecture architecture = CudaArchitecture.SM_80;
        using var backend = new PTXBackend(
            context, new CudaCapabilityContext(architecture), architecture, CudaInstructionSet.ISA_80, null);
        MethodInfo kernel = typeof(PtxTextTests).GetMethod(name, Static)!;
        var entry = EntryPointDescription.FromExplicitlyGroupedKernel(kernel);
        return ((PTXCompiledKernel)backend.Compile(entry, default)).PTXAssembly;
    }

    [GeneratedRegex(@"%(?<kind>[gsc=]?)(?<n>\d)(\.\d)?|%d\.\d")]
    private static partial Regex Placeholder();
}
