using GpuKit.Ilgpu.Runtime.Driver;
using ILGPU.Runtime.Cuda;

namespace GpuKit.Ilgpu.Runtime;

/// <summary>
/// Lets launches in a recorded graph overlap (programmatic dependent launch): where a kernel and its only predecessor both
/// declare <see cref="KernelTraits.Overlaps"/>, the edge between them waits for the predecessor's release instead of its end, and
/// the kernel itself waits for the end before it touches anything but weights and what is certainly older (docs/decisions/0008).
/// </summary>
/// <remarks>
/// Nothing that a kernel reads early can still be in flight: a kernel of this kind writes no weights, and one that does has an
/// ordinary edge to whatever follows it, so everything after that edge starts when the weights are there.
/// </remarks>
internal static unsafe class GraphOverlap
{
    private const int KernelNodeType = 0;
    private const int FirstArch = 90;

    private static readonly GraphEdge Overlapping = new() { FromPort = 1, Type = 1 };

    /// <summary>Rewrites the edges of a graph that is not instantiated yet. Does nothing where card or driver lack the feature.</summary>
    public static void Apply(GpuDevice device, nint graph)
    {
        if (device.Target!.Value.Number < FirstArch)
            return;
        try
        {
            Rewrite(device, graph);
        }
        catch (EntryPointNotFoundException)
        {
            // A driver before CUDA 12.3: the launches follow one another.
        }
    }

    private static void Rewrite(GpuDevice device, nint graph)
    {
        nuint count = 0;
        device.Check(CudaDriver.cuGraphGetEdges_v2(graph, null, null, null, ref count), "counting the edges of a graph");
        if (count == 0)
            return;
        var from = new nint[count];
        var to = new nint[count];
        var edges = new GraphEdge[count];
        fixed (nint* firstFrom = from, firstTo = to)
        fixed (GraphEdge* firstEdge = edges)
            device.Check(CudaDriver.cuGraphGetEdges_v2(graph, firstFrom, firstTo, firstEdge, ref count), "reading the edges of a graph");
        Dictionary<nint, int> predecessors = to.GroupBy(node => node).ToDictionary(g => g.Key, g => g.Count());
        var overlaps = from.Concat(to).Distinct().ToDictionary(node => node, node => MayOverlap(device, node));
        for (int i = 0; i < (int)count; i++)
            if (predecessors[to[i]] == 1 && overlaps[from[i]] && overlaps[to[i]])
                Replace(device, graph, from[i], to[i], edges[i]);
    }

    private static bool MayOverlap(GpuDevice device, nint node)
    {
        device.Check(CudaDriver.cuGraphNodeGetType(node, out int type), "reading the type of a graph's node");
        if (type != KernelNodeType)
            return false;
        // A kernel of another library may be known to the driver by another handle: it does not overlap then.
        return CudaDriver.cuGraphKernelNodeGetParams_v2(node, out KernelNode kernel) == CudaError.CUDA_SUCCESS && device.Kernels.Overlaps(kernel.Function);
    }

    private static void Replace(GpuDevice device, nint graph, nint from, nint to, GraphEdge edge)
    {
        GraphEdge overlapping = Overlapping;
        device.Check(CudaDriver.cuGraphRemoveDependencies_v2(graph, &from, &to, &edge, 1), "removing an edge of a graph");
        device.Check(CudaDriver.cuGraphAddDependencies_v2(graph, &from, &to, &overlapping, 1), "adding an edge to a graph");
    }
}
