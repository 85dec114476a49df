namespace GpuKit.Ilgpu.Kernels;

/// <summary>Where a product goes.</summary>
internal interface ITileSink
{
    /// <summary>Whether it is added to the residual stream; else it is stored in BF16.</summary>
    static abstract bool IsResidual { get; }
}

/// <summary>Stored in BF16; the router's sums become zero for the product that adds to them.</summary>
internal readonly struct TileStore : ITileSink
{
    public static bool IsResidual => false;
}

/// <summary>Added to the residual stream; what a block's 16 columns of it add to the router's logits goes there at once.</summary>
internal readonly struct TileAdd : ITileSink
{
    public static bool IsResidual => true;
}
