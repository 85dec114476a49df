using System.Globalization;
using System.Reflection;
using System.Text;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Backends.PTX;
using ILGPU.IR;
using ILGPU.IR.Types;
using ILGPU.IR.Values;
using Compound = ILGPU.Backends.RegisterAllocator<ILGPU.Backends.PTX.PTXRegisterKind>.CompoundRegister;
using Hardware = ILGPU.Backends.RegisterAllocator<ILGPU.Backends.PTX.PTXRegisterKind>.HardwareRegister;
using Primitive = ILGPU.Backends.RegisterAllocator<ILGPU.Backends.PTX.PTXRegisterKind>.PrimitiveRegister;
using Register = ILGPU.Backends.RegisterAllocator<ILGPU.Backends.PTX.PTXRegisterKind>.Register;

namespace GpuKit.Ilgpu.Runtime.Ptx;

/// <summary>
/// Expands the text of one <see cref="PtxAttribute"/> for one call: placeholders become the registers that ILGPU's
/// allocator assigned. One instance handles one call.
/// </summary>
internal sealed class PtxEmitter
{
    private readonly PTXCodeGenerator generator;
    private readonly MethodCall call;
    private readonly string text;
    private readonly string name;
    private readonly Register? result;
    private readonly StringBuilder moves = new();
    private readonly StringBuilder addresses = new();
    private readonly StringBuilder body = new();
    private int position;

    private PtxEmitter(PTXCodeGenerator generator, MethodCall call, MethodInfo method)
    {
        this.generator = generator;
        this.call = call;
        text = PtxRepetition.Expand(method.GetCustomAttribute<PtxAttribute>()!.Text);
        name = $"{method.DeclaringType!.Name}.{method.Name}";
        result = method.ReturnType == typeof(void) ? null : generator.Allocate(call);
    }

    /// <summary>ILGPU's code-generator handler for every method with a <see cref="PtxAttribute"/>.</summary>
    public static void Emit(PTXBackend backend, PTXCodeGenerator generator, Value value)
    {
        var call = (MethodCall)value;
        new PtxEmitter(generator, call, (MethodInfo)call.Target.Source).Run();
    }

    /// <summary>Handler for architectures on which the instruction is not needed.</summary>
    public static void Omit(PTXBackend backend, PTXCodeGenerator generator, Value value)
    {
    }

    /// <summary>Handler for architectures without the instruction: names it instead of ILGPU's null reference.</summary>
    public static void Reject(PTXBackend backend, PTXCodeGenerator generator, Value value)
    {
        var method = (MethodInfo)((MethodCall)value).Target.Source;
        var attribute = method.GetCustomAttribute<PtxAttribute>()!;
        throw new PtxInstructionNotSupportedException(
            $"{method.DeclaringType!.Name}.{method.Name}",
            attribute.ExactArch is { } exact ? $"exactly sm_{exact}" : $"sm_{attribute.MinArch} or newer",
            $"sm_{backend.Architecture.Major}{backend.Architecture.Minor}");
    }

    private void Run()
    {
        while (position < text.Length)
        {
            char c = text[position++];
            if (c == '%')
                Placeholder();
            else
                body.Append(c);
        }
        generator.Builder.Append(moves);
        if (addresses.Length > 0)
            generator.Builder.Append("\t{\n").Append(addresses).Append('\t').Append(body).Append("\n\t}\n");
        else
            generator.Builder.Append('\t').Append(body).Append('\n');
    }

    private void Placeholder()
    {
        char kind = text[position++];
        switch (kind)
        {
            case '%':
                body.Append('%');
                break;
            case 'd':
                body.Append(Name(Field(result ?? throw Malformed("has %d but returns nothing"))));
                break;
            case '=':
                CopyIntoResult(generator.Load(call[Digit()]));
                break;
            case 'c':
                body.Append(Constant(Digit()));
                break;
            case 'g':
                body.Append(Address(Digit(), MemoryAddressSpace.Global));
                break;
            case 's':
                body.Append(Address(Digit(), MemoryAddressSpace.Shared));
                break;
            case >= '0' and <= '9':
                body.Append(Input(Field(generator.Load(call[kind - '0']))));
                break;
            default:
                throw Malformed($"has an unknown placeholder '%{kind}'");
        }
    }

    private int Digit() => char.IsAsciiDigit(text[position]) ? text[position++] - '0' : throw Malformed("lacks an argument number");

    // "%d.1", "%0.3": a field of a struct operand. A dot that no digit follows belongs to the instruction.
    private Register Field(Register register)
    {
        if (position + 1 >= text.Length || text[position] != '.' || !char.IsAsciiDigit(text[position + 1]))
            return register;
        position++;
        int field = Digit();
        return register is Compound compound ? compound.Children[field] : throw Malformed($"takes field {field} of a scalar");
    }

    private long Constant(int argument) => call[argument].Resolve() is PrimitiveValue value
        ? value.Int64Value
        : throw Malformed($"needs a compile-time constant as argument {argument}");

    private string Address(int argument, MemoryAddressSpace wanted)
    {
        var register = (Hardware)generator.LoadHardware(call[argument]);
        MemoryAddressSpace space = (call[argument].Type as PointerType)?.AddressSpace ?? MemoryAddressSpace.Generic;
        if (space == wanted)
            return Name(register);
        if (space != MemoryAddressSpace.Generic)
            throw Malformed($"got a {space} address as argument {argument}, it takes {wanted}");
        string converted = "address" + argument.ToString(CultureInfo.InvariantCulture);
        string suffix = wanted == MemoryAddressSpace.Shared ? "shared" : "global";
        addresses.Append(CultureInfo.InvariantCulture, $"\t.reg .b64 {converted}; cvta.to.{suffix}.u64 {converted}, {Name(register)};\n");
        return converted;
    }

    private void CopyIntoResult(Register source)
    {
        if (result is Compound target && source is Compound values)
            CopyFields(target, values);
        else
            Move(result ?? throw Malformed("has %= but returns nothing"), source);
    }

    private void CopyFields(Compound target, Compound source)
    {
        for (int i = 0; i < target.NumChildren; i++)
        {
            if (target.Children[i] is Compound inner)
                CopyFields(inner, (Compound)source.Children[i]);
            else
                Move(target.Children[i], source.Children[i]);
        }
    }

    private void Move(Register target, Register source) =>
        moves.Append(CultureInfo.InvariantCulture, $"\tmov.b32 {Name(target)}, {Input(source)};\n");

    // Vector operands take no immediates, so constants are moved into registers first.
    private string Input(Register register) => register is Compound compound
        ? "{" + string.Join(", ", compound.Children.Select(Input)) + "}"
        : Name(generator.EnsureHardwareRegister((Primitive)register));

    private static string Name(Register register) => register switch
    {
        Compound compound => "{" + string.Join(", ", compound.Children.Select(Name)) + "}",
        Hardware hardware => "%" + PTXRegisterAllocator.GetStringRepresentation(hardware),
        _ => throw new InvalidOperationException("a result or address is never a constant"),
    };

    private InvalidOperationException Malformed(string what) => new($"The PTX text of {name} {what}.");
}
