namespace GpuKit.Ilgpu.Models;

/// <summary>Where a network's weights come from: a checkpoint, or random numbers. What it gives belongs to the caller.</summary>
internal interface IWeightSource
{
    /// <summary>The RMSNorm gains of a width.</summary>
    DeviceBuffer<BFloat16> Gain(string name, int width);

    /// <summary>One matrix.</summary>
    QuantizedMatrix Matrix(string name, int rows, int k);

    /// <summary>A linear layer whose rows are the rows of several tensors, one after the other.</summary>
    FusedLinear Fused(int k, params (string Name, int Rows)[] parts);

    /// <summary>The same for a stack of experts; <paramref name="parts"/> gives the tensors of one expert.</summary>
    FusedLinear Experts(int k, Func<int, (string Name, int Rows)[]> parts);

    /// <summary>Waits until all that was given is on the device: before that it must not be used.</summary>
    void Complete();

    /// <summary>The same before what was given is disposed of after a failure; silent. Nothing is asked for any more.</summary>
    void Abandon();
}
