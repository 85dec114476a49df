namespace GpuKit.Ilgpu.Kernels;

/// <summary>What happens to float32 sums before they are rounded and stored: a type argument of <see cref="Gemm"/> and <see cref="GemvFused"/>.</summary>
internal interface IGemmEpilogue
{
    /// <summary>Whether rows of W are gates and then as many values: y[m, j] = silu(gate j) · value j. Nothing is added then.</summary>
    static abstract bool IsGated { get; }

    /// <summary>Whether <see cref="LinearArgs.Bias"/> is added, first.</summary>
    static abstract bool AddsBias { get; }

    /// <summary>Whether <see cref="LinearArgs.Residual"/> is added.</summary>
    static abstract bool AddsResidual { get; }
}

/// <summary>Sums as they are.</summary>
internal readonly struct PlainEpilogue : IGemmEpilogue
{
    public static bool IsGated => false;

    public static bool AddsBias => false;

    public static bool AddsResidual => false;
}

/// <summary>A bias is added.</summary>
internal readonly struct BiasEpilogue : IGemmEpilogue
{
    public static bool IsGated => false;

    public static bool AddsBias => true;

    public static bool AddsResidual => false;
}

/// <summary>A residual is added.</summary>
internal readonly struct ResidualEpilogue : IGemmEpilogue
{
    public static bool IsGated => false;

    public static bool AddsBias => false;

    public static bool AddsResidual => true;
}

/// <summary>A bias and then a residual are added.</summary>
internal readonly struct BiasResidualEpilogue : IGemmEpilogue
{
    public static bool IsGated => false;

    public static bool AddsBias => true;

    public static bool AddsResidual => true;
}

/// <summary>SwiGLU: a block takes half a tile of gates and the values that belong to them.</summary>
internal readonly struct GatedEpilogue : IGemmEpilogue
{
    public static bool IsGated => true;

    public static bool AddsBias => false;

    public static bool AddsResidual => false;
}
