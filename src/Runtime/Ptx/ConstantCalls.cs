using ILGPU;
using ILGPU.IR;
using ILGPU.IR.Transformations;
using ILGPU.IR.Values;

namespace GpuKit.Ilgpu.Runtime.Ptx;

/// <summary>
/// A call of a method that returns a constant becomes the constant, and so does what is computed of constants alone. A kernel asks its type arguments by such calls, so its branches are decided then.
/// </summary>
/// <remarks>Methods are transformed side by side, so what they return is noted before any is: a round reaches one call deeper, whatever the order.</remarks>
internal sealed class ConstantCalls : UnorderedTransformation<IReadOnlyDictionary<Method, PrimitiveValue>>
{
    protected override IReadOnlyDictionary<Method, PrimitiveValue> CreateIntermediate(in MethodCollection methods)
    {
        var returned = new Dictionary<Method, PrimitiveValue>();
        foreach (Method method in methods)
        {
            if (Returned(method) is { } constant)
                returned.Add(method, constant);
        }
        return returned;
    }

    protected override bool PerformTransformation(Method.Builder builder, IReadOnlyDictionary<Method, PrimitiveValue> returned)
    {
        bool changed = false;
        foreach (BasicBlock block in builder.SourceBlocks)
        {
            BasicBlock.Builder into = builder[block];
            foreach (BasicBlock.ValueEntry entry in block)
            {
                Value value = entry.Value;
                if (!IsConstant(value, returned))
                    continue;
                into.InsertPosition = entry.Index;
                if (Fold(into, value, returned).Resolve() is not PrimitiveValue constant)
                    continue;
                value.Replace(constant);
                into.Remove(value);
                changed = true;
            }
            into.SetupInsertPositionToEnd();
        }
        return changed;
    }

    protected override void FinishProcessing(IReadOnlyDictionary<Method, PrimitiveValue> returned)
    {
    }

    private static bool IsConstant(Value value, IReadOnlyDictionary<Method, PrimitiveValue> returned) => value switch
    {
        MethodCall call => returned.ContainsKey(call.Target),
        CompareValue compare => IsConstant(compare.Left) && IsConstant(compare.Right),
        BinaryArithmeticValue binary => IsConstant(binary.Left) && IsConstant(binary.Right) && !MayThrow(binary),
        UnaryArithmeticValue unary => IsConstant(unary.Value),
        ConvertValue convert => IsConstant(convert.Value),
        _ => false,
    };

    private static bool IsConstant(ValueReference reference) => reference.Resolve() is PrimitiveValue;

    // ILGPU divides as C# does, also in branches that are dropped afterwards.
    private static bool MayThrow(BinaryArithmeticValue binary) =>
        binary.Kind is BinaryArithmeticKind.Div or BinaryArithmeticKind.Rem && binary.BasicValueType is not (BasicValueType.Float16 or BasicValueType.Float32 or BasicValueType.Float64) && binary.Right.Resolve() is PrimitiveValue { RawValue: 0 or -1 };

    // ILGPU computes at once what it is asked to build of constants.
    private static ValueReference Fold(BasicBlock.Builder into, Value value, IReadOnlyDictionary<Method, PrimitiveValue> returned) => value switch
    {
        MethodCall call => into.CreatePrimitiveValue(value.Location, returned[call.Target].BasicValueType, returned[call.Target].RawValue),
        CompareValue compare => into.CreateCompare(value.Location, compare.Left, compare.Right, compare.Kind, compare.Flags),
        BinaryArithmeticValue binary => into.CreateArithmetic(value.Location, binary.Left, binary.Right, binary.Kind, binary.Flags),
        UnaryArithmeticValue unary => into.CreateArithmetic(value.Location, unary.Value, unary.Kind, unary.Flags),
        ConvertValue convert => into.CreateConvert(value.Location, convert.Value, convert.Type, convert.Flags),
        _ => value,
    };

    private static PrimitiveValue? Returned(Method method) =>
        method.HasImplementation && method.Blocks.Count == 1 && method.EntryBlock.Terminator is ReturnTerminator { IsVoidReturn: false } end && !method.EntryBlock.HasSideEffects()
            ? end.ReturnValue.Resolve() as PrimitiveValue
            : null;
}
