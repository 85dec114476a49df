using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Models;

/// <summary>Puts a checkpoint's tensors on a device, checking each against the shape that the configuration asks for.</summary>
internal sealed class WeightLoader(GpuDevice device, Checkpoint checkpoint, Qwen3MoeConfig config, LoadOptions options, CancellationToken cancellation)
{
    private readonly Fp8Scales fp8 = new(checkpoint, config);
    private long loadedBytes;

    /// <summary>The RMSNorm gains of a width.</summary>
    public DeviceBuffer<BFloat16> Gain(string name, int width)
    {
        TensorInfo info = Require(name, width);
        if (info.Type != TensorType.BF16)
            throw Fail($"'{name}' is {info.Type.Spelling()}; norm weights must be BF16");
        ReadOnlySpan<BFloat16> gains = MemoryMarshal.Cast<byte, BFloat16>(checkpoint.Bytes(name));
        for (int i = 0; i < gains.Length; i++)
            if (!float.IsFinite((float)gains[i]))
                throw Fail($"'{name}': element {i} is {(float)gains[i]}; norm weights must be finite");
        DeviceBuffer<BFloat16> buffer = device.Upload(gains);
        Done(info);
        return buffer;
    }

    /// <summary>A linear layer whose rows are the rows of several tensors, one after the other.</summary>
    public FusedLinear Fused(int k, params (string Name, int Rows)[] parts)
    {
        var matrices = new List<(QuantizedMatrix, int)>();
        try
        {
            if (CanFuse(parts))
            {
                matrices.Add((Stack(k, 1, [.. parts]), 0));
                return new FusedLinear(matrices);
            }
            int offset = 0;
            foreach ((string name, int rows) in parts)
            {
                matrices.Add((Stack(k, 1, (name, rows)), offset));
                offset += rows;
            }
            return new FusedLinear(matrices);
        }
        catch
        {
            matrices.ForEach(m => m.Item1.Dispose());
            throw;
        }
    }

    /// <summary>The same for a stack of experts; <paramref name="parts"/> gives the tensors of one expert.</summary>
    public FusedLinear Experts(int k, Func<int, (string Name, int Rows)[]> parts)
    {
        var matrices = new List<(QuantizedMatrix, int)>();
        (string Name, int Rows)[][] all = [.. Enumerable.Range(0, config.Experts).Select(parts)];
        try
        {
            if (CanFuse([.. all.SelectMany(p => p)], all[0].Length))
            {
                matrices.Add((Stack(k, config.Experts, [.. all.SelectMany(p => p)]), 0));
                return new FusedLinear(matrices);
            }
            for (int part = 0, offset = 0; part < all[0].Length; offset += all[0][part].Rows, part++)
            {
                int index = part;
                matrices.Add((Stack(k, config.Experts, [.. all.Select(p => p[index])]), offset));
            }
            return new FusedLinear(matrices);
        }
        catch
        {
            matrices.ForEach(m => m.Item1.Dispose());
            throw;
        }
    }

    /// <summary>One matrix.</summary>
    public QuantizedMatrix Matrix(string name, int rows, int k) => Stack(k, 1, (name, rows));

    // Rows can share a matrix when they are stored alike and every tensor but a matrix's last ends on a scale block's edge.
    private bool CanFuse((string Name, int Rows)[] parts, int partsPerMatrix = int.MaxValue)
    {
        TensorType type = checkpoint.Info(parts[0].Name).Type;
        for (int i = 0; i < parts.Length; i++)
        {
            bool last = (i + 1) % Math.Min(partsPerMatrix, parts.Length) == 0;
            bool onEdge = last || type != TensorType.F8E4M3 || parts[i].Rows % fp8.Block(parts[i].Name).Rows == 0;
            if (checkpoint.Info(parts[i].Name).Type != type || !onEdge)
                return false;
        }
        return true;
    }

    private QuantizedMatrix Stack(int k, int count, params (string Name, int Rows)[] parts)
    {
        int n = parts.Sum(p => p.Rows) / count;
        TensorType type = checkpoint.Info(parts[0].Name).Type;
        foreach ((string name, int rows) in parts)
        {
            TensorInfo info = Require(name, rows, k);
            if (info.Type != type)
                throw Fail($"'{name}' is {info.Type.Spelling()}, '{parts[0].Name}' is {type.Spelling()}; experts of one layer must be stored alike");
        }
        WeightFormat format = FormatOf(parts[0].Name, type);
        var matrix = new QuantizedMatrix(device, format, n, k, count, type == TensorType.F8E4M3 ? fp8.Block(parts[0].Name) : null);
        try
        {
            int slab = 0, row = 0;
            foreach ((string name, int rows) in parts)
            {
                Write(matrix, slab, row, name, rows);
                row += rows;
                if (row == n)
                    (slab, row) = (slab + 1, 0);
            }
            return matrix;
        }
        catch
        {
            matrix.Dispose();
            throw;
        }
    }

    private WeightFormat FormatOf(string name, TensorType type) => type switch
    {
        TensorType.BF16 => WeightFormat.Bf16,
        TensorType.F8E4M3 => options.DequantizeToBf16 ? WeightFormat.Bf16 : WeightFormat.Fp8Block,
        _ => throw Fail($"'{name}' is {type.Spelling()}; weights must be BF16 or F8_E4M3 with block scales"),
    };

    private void Write(QuantizedMatrix matrix, int slab, int firstRow, string name, int rows)
    {
        TensorInfo info = checkpoint.Info(name);
        ScaleBlock? block = info.Type == TensorType.F8E4M3 ? fp8.Block(name) : null;
        float[] scales = block is null ? [] : Scales(name, rows, matrix.K);
        long rowBytes = info.ByteLength / rows;
        // Whole scale blocks at a time.
        int unit = block?.Rows ?? 1;
        int step = (int)Math.Clamp(options.BytesAtOnce / rowBytes / unit * unit, unit, int.MaxValue / 2);
        for (int row = 0; row < rows; row += step)
        {
            cancellation.ThrowIfCancellationRequested();
            int count = Math.Min(step, rows - row);
            ReadOnlySpan<byte> codes = checkpoint.Bytes(name, row * rowBytes, checked((int)(count * rowBytes)));
            float[] partScales = block is { } b ? Fp8Scales.OfRows(scales, row, count, matrix.K, b) : [];
            // Errors count rows from the part's first.
            WriteRows(matrix, (slab, firstRow + row, count), codes, (partScales, block), row == 0 ? $"'{name}'" : $"'{name}' from row {row}");
        }
        Done(info);
    }

    private void WriteRows(QuantizedMatrix matrix, (int Slab, int First, int Count) rows, ReadOnlySpan<byte> codes, (float[] Values, ScaleBlock? Block) scales, string part)
    {
        try
        {
            if (matrix.Format == WeightFormat.Bf16 && scales.Block is { } block)
            {
                float[] values = Quantizer.Dequantize(new HostMatrix(WeightFormat.Fp8Block, rows.Count, matrix.K, codes.ToArray(), scales.Values, block));
                codes = Quantizer.Quantize(values, rows.Count, matrix.K, WeightFormat.Bf16).Codes;
                scales = ([], null);
            }
            matrix.Write(rows.Slab, rows.First, rows.Count, codes, scales.Values, part);
        }
        catch (ArgumentException e)
        {
            throw Fail(e.Message, e);
        }
    }

    private float[] Scales(string name, int rows, int k)
    {
        (float[] scales, TensorInfo info) = fp8.Read(name, rows, k);
        Done(info);
        return scales;
    }

    private TensorInfo Require(string name, params long[] shape)
    {
        cancellation.ThrowIfCancellationRequested();
        TensorInfo info = checkpoint.Info(name);
        return info.Shape.SequenceEqual(shape)
            ? info
            : throw Fail($"'{name}' has the shape [{string.Join(", ", info.Shape)}]; config.json asks for [{string.Join(", ", shape)}]");
    }

    private void Done(TensorInfo info)
    {
        loadedBytes += info.ByteLength;
        options.Progress?.Report(new LoadProgress(loadedBytes, checkpoint.TotalBytes, info.Name));
    }

    private ModelFileException Fail(string problem, Exception? inner = null) => new(Path.GetFileName(checkpoint.Folder), problem, inner);
}
