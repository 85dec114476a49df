using ILGPU.IR;
using ILGPU.IR.Transformations;
using ILGPU.IR.Values;

namespace GpuKit.Ilgpu.Runtime.Ptx;

/// <summary>
/// A call of a method that returns a constant becomes the constant, and so does what is computed of constants alone. A kernel asks its type arguments by such calls, so its branches are decided then.
/// </summary>
internal sealed class ConstantCalls : UnorderedTransformation
{
    protected override bool PerformTransformation(Method.Builder builder)
    {
        bool changed = false;
        foreach (BasicBlock block in builder.SourceBlocks)
        {
            BasicBlock.Builder into = builder[block];
            foreach (BasicBlock.ValueEntry entry in block)
            {
                Value value = entry.Value;
                into.SetupInsertPosition(value);
                if (Fold(into, value).Resolve() is not PrimitiveValue constant || constant == value)
                    continue;
                value.Replace(constant);
                into.Remove(value);
                changed = true;
            }
            into.SetupInsertPositionToEnd();
        }
        return changed;
    }

    // ILGPU computes at once what it is asked to build of constants.
    private static ValueReference Fold(BasicBlock.Builder into, Value value) => value switch
    {
        MethodCall call when Returned(call.Target) is { } constant => into.CreatePrimitiveValue(value.Location, constant.BasicValueType, constant.RawValue),
        CompareValue compare when IsConstant(compare.Left) && IsConstant(compare.Right) => into.CreateCompare(value.Location, compare.Left, compare.Right, compare.Kind, compare.Flags),
        BinaryArithmeticValue binary when IsConstant(binary.Left) && IsConstant(binary.Right) => into.CreateArithmetic(value.Location, binary.Left, binary.Right, binary.Kind, binary.Flags),
        UnaryArithmeticValue unary when IsConstant(unary.Value) => into.CreateArithmetic(value.Location, unary.Value, unary.Kind, unary.Flags),
        ConvertValue convert when IsConstant(convert.Value) => into.CreateConvert(value.Location, convert.Value, convert.Type, convert.Flags),
        _ => value,
    };

    private static bool IsConstant(ValueReference reference) => reference.Resolve() is PrimitiveValue;

    private static PrimitiveValue? Returned(Method method) =>
        method.HasImplementation && method.Blocks.Count == 1 && method.EntryBlock.Terminator is ReturnTerminator { IsVoidReturn: false } end && !HasEffects(method.EntryBlock)
            ? end.ReturnValue.Resolve() as PrimitiveValue
            : null;

    private static bool HasEffects(BasicBlock block)
    {
        foreach (BasicBlock.ValueEntry entry in block)
        {
            if (entry.Value is SideEffectValue)
                return true;
        }
        return false;
    }
}
