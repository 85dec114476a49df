namespace GpuKit.Ilgpu.Kernels;

/// <summary>Where a product goes.</summary>
internal interface ITileSink
{
    /// <summary>Whether it is added to the residual stream.</summary>
    static abstract bool IsResidual { get; }

    /// <summary>Whether it is stored as a router's sums; else, if it is not added, in BF16.</summary>
    static abstract bool IsRouter { get; }
}

/// <summary>Stored in BF16; the router's sums become zero for the product that adds to them.</summary>
internal readonly struct TileStore : ITileSink
{
    public static bool IsResidual => false;

    public static bool IsRouter => false;
}

/// <summary>Added to the residual stream; what a block's 16 columns of it add to the router's logits goes there at once.</summary>
internal readonly struct TileAdd : ITileSink
{
    public static bool IsResidual => true;

    public static bool IsRouter => false;
}

/// <summary>A router's own product, stored as its sums; what stands behind them becomes zero.</summary>
internal readonly struct TileFeed : ITileSink
{
    public static bool IsResidual => false;

    public static bool IsRouter => true;
}
