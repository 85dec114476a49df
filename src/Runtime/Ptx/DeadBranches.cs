using ILGPU.IR;
using ILGPU.IR.Transformations;
using ILGPU.IR.Values;

namespace GpuKit.Ilgpu.Runtime.Ptx;

/// <summary>
/// Empties the blocks that no thread can reach, before anything is done to what they compute. ILGPU drops them late, after it has split their structures into fields: of a kernel
/// whose type arguments decide most branches, that is most of its work where its methods are joined first (<see cref="KernelTraits.JoinedFirst"/>); elsewhere little is left of them.
/// </summary>
/// <remarks>
/// The dead blocks next to living ones stay until ILGPU drops them, with nothing in them but zeros. Were they dropped here, the order of variables at the start of loops and what is
/// moved out of loops would be others: the same instructions, but other registers, and some kernels would spill (docs/decisions/0003).
/// </remarks>
internal sealed class DeadBranches : UnorderedTransformation
{
    protected override bool PerformTransformation(Method.Builder builder)
    {
        BasicBlock[] all = [.. builder.SourceBlocks];
        HashSet<BasicBlock> living = [.. Reachable(builder.Method.EntryBlock, Taken)];
        if (living.Count == all.Length)
            return false;
        Dictionary<BasicBlock, BasicBlock> exits = LeadToExits(builder, all, living);
        HashSet<BasicBlock> left = [.. builder.UpdateControlFlow()];
        foreach (BasicBlock block in all)
        {
            if (left.Contains(block) && !living.Contains(block))
                Empty(builder[block], builder[block], ReplacedIn(block, constants: false));
            else if (!left.Contains(block))
                Empty(builder[block], builder[exits[block]], ReplacedIn(block, constants: true));
        }
        return true;
    }

    // From a dead block that a living one names, straight to the one block that leads back: the blocks between are gone.
    private static Dictionary<BasicBlock, BasicBlock> LeadToExits(Method.Builder builder, BasicBlock[] all, HashSet<BasicBlock> living)
    {
        var exits = new Dictionary<BasicBlock, BasicBlock>();
        foreach (BasicBlock entry in all)
        {
            if (living.Contains(entry) || IsExit(entry) || !entry.Predecessors.ToArray().Any(living.Contains))
                continue;
            List<BasicBlock> region = Reachable(entry, block => IsExit(block) ? [] : Successors(block));
            BasicBlock[] ends = [.. region.Where(IsExit)];
            if (ends.Length != 1)
                continue;
            builder[entry].CreateBranch(entry.Terminator!.Location, ends[0]);
            foreach (BasicBlock block in region)
                exits[block] = ends[0];
        }
        return exits;

        bool IsExit(BasicBlock block) => block.Successors.Length == 0 || Successors(block).Any(living.Contains);
    }

    // What stays behind of a block may still be named where it leads back to living ones: a zero takes its place there.
    private static void Empty(BasicBlock.Builder block, BasicBlock.Builder zeros, List<Value> values)
    {
        foreach (Value value in values)
        {
            if (!value.Type.IsVoidType && value.Uses.HasAny)
            {
                if (zeros == block)
                    zeros.SetupInsertPosition(value);
                else
                    zeros.SetupInsertPositionToStart();
                value.Replace(zeros.CreateNull(value.Location, value.Type));
            }
            block.Remove(value);
        }
        zeros.SetupInsertPositionToEnd();
        if (zeros != block)
            block.Clear();
    }

    private static List<Value> ReplacedIn(BasicBlock block, bool constants)
    {
        var values = new List<Value>();
        foreach (BasicBlock.ValueEntry entry in block)
        {
            if (constants || entry.Value is not ConstantNode)
                values.Add(entry.Value);
        }
        return values;
    }

    private static BasicBlock[] Taken(BasicBlock block) => block.Terminator is IfBranch { CanFold: true } branch
        ? [branch.Condition.ResolveAs<PrimitiveValue>()!.Int1Value ? branch.TrueTarget : branch.FalseTarget]
        : Successors(block);

    private static BasicBlock[] Successors(BasicBlock block) => block.Successors.ToArray();

    private static List<BasicBlock> Reachable(BasicBlock entry, Func<BasicBlock, BasicBlock[]> next)
    {
        var found = new HashSet<BasicBlock> { entry };
        List<BasicBlock> order = [entry];
        for (int i = 0; i < order.Count; i++)
            order.AddRange(next(order[i]).Where(found.Add));
        return order;
    }
}
