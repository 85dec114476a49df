namespace GpuKit.Ilgpu;

/// <summary>What happens to sums before they are rounded and stored, a type argument of the kernels (<see cref="Kernels.IGemmEpilogue"/>).</summary>
internal enum GemmEpilogue
{
    Plain,
    Bias,
    Residual,

    /// <summary>The bias first.</summary>
    BiasResidual,

    /// <summary>Rows of W are gates and values (SwiGLU); nothing is added.</summary>
    Gated,
}
