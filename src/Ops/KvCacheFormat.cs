namespace GpuKit.Ilgpu;

/// <summary>How a <see cref="KvCache"/> stores keys and values.</summary>
public enum KvCacheFormat
{
    /// <summary>BF16: 16 bits a number.</summary>
    Bf16,

    /// <summary>E4M3 codes with a float32 scale a key and a value of a KV head: a little more than 8 bits a number, and FP8's rounding (docs/numerics.md).</summary>
    Fp8,
}
