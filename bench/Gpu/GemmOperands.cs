namespace GpuKit.Ilgpu.Bench;

/// <summary>Activations of many rows, made on the device, the output of a product, and its error in some rows and columns.</summary>
internal sealed class GemmOperands : IDisposable
{
    private const int CheckedRows = 12;

    private readonly GpuStream stream;
    private readonly int m;
    private readonly int n;
    private readonly int k;
    private readonly int[] rows;

    public GemmOperands(GpuStream stream, ActivationFormat? activation, int m, int n, int k)
    {
        (this.stream, this.m, this.n, this.k) = (stream, m, n, k);
        // Spread over the rows, the first and the last included.
        rows = [.. Enumerable.Range(0, CheckedRows).Select(i => (int)((long)i * (m - 1) / (CheckedRows - 1))).Distinct()];
        X = stream.Device.Allocate<BFloat16>((long)m * k);
        Y = stream.Device.Allocate<BFloat16>((long)m * n);
        // ±[0.5, 1).
        RandomBits.Fill(stream, X.View.Cast<uint>(), (uint)(m + k), 0x807F807Fu, 0x3F003F00u);
        if (activation is { } format)
        {
            Quantized = new QuantizedActivations(stream.Device, format, m, k);
            ActivationQuantizer.Quantize(stream, X, Quantized, m);
        }
    }

    /// <summary><c>[m, k]</c>.</summary>
    public DeviceBuffer<BFloat16> X { get; }

    /// <summary>The same, quantised, where that is what is multiplied.</summary>
    public QuantizedActivations? Quantized { get; }

    /// <summary><c>[m, n]</c>.</summary>
    public DeviceBuffer<BFloat16> Y { get; }

    /// <summary>The launch that is timed: what the library chooses, or a plan, path or tile, with codes on both sides and a way to decode them, that the caller names.</summary>
    public void Multiply(QuantizedMatrix w, HopperPlan? hopper, HopperMixedPlan? mixed, HopperSplitPlan? split, SplitPlan? portableSplit, LinearPath? path, (GemmTile? Tile, Fp8Decoding? Decoding) tiles)
    {
        path ??= tiles.Tile is null ? null : LinearPath.Gemm;
        if (hopper is { } plan && Quantized is not null)
            HopperLinear.Launch(stream, w, Quantized, Y.View.Cast<byte>(), false, (m, 0), plan);
        else if (hopper is { } other)
            HopperLinear.Launch(stream, w, X, Y.View.Cast<byte>(), false, (m, 0), other);
        else if (mixed is { } decoding)
            HopperMixedLinear.Launch(stream, w, X, Y.View.Cast<byte>(), false, (m, 0), decoding);
        else if (split is { } parts)
            HopperSplitLinear.Launch(stream, w, X, Y.View.Cast<byte>(), false, (m, 0), parts);
        else if (portableSplit is { } every)
            SplitLinear.Launch(stream, w, X, Y.View.Cast<byte>(), false, (m, 0), every);
        else if (Quantized is not null)
            Linear.Launch(stream, w, Quantized, Y.View.Cast<byte>(), false, (m, 0), Accumulator.Float32, path, tiles.Decoding, tiles.Tile);
        else
            Linear.Launch(stream, w, X, Y.View.Cast<byte>(), false, (m, 0), path, tile: tiles.Tile);
    }

    /// <summary>Relative error of what <paramref name="multiply"/> writes; what it does not write is NaN.</summary>
    public double Error(Action multiply, GemvCheck check)
    {
        RandomBits.Fill(stream, Y.View.Cast<uint>(), 1, 0, 0xFFFFFFFFu);
        multiply();
        double[][] inputs = Array.ConvertAll(rows, row => Quantized is null ? Array.ConvertAll(Row(X, row, k), v => (double)(float)v) : StoredRow.Of(stream, Quantized, row).Decode(k));
        BFloat16[][] outputs = Array.ConvertAll(rows, row => Row(Y, row, n));
        return check.Error(inputs, i => (float)outputs[i / n][i % n]);
    }

    public void Dispose()
    {
        X.Dispose();
        Y.Dispose();
        Quantized?.Dispose();
    }

    private BFloat16[] Row(DeviceBuffer<BFloat16> matrix, int row, int length)
    {
        var values = new BFloat16[length];
        matrix.CopyTo(stream, values, (long)row * length);
        return values;
    }
}
