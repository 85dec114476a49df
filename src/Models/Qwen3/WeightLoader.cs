using System.Runtime.InteropServices;

namespace GpuKit.Ilgpu.Models;

/// <summary>Puts a checkpoint's tensors on a device, checking each against the shape that the configuration asks for.</summary>
internal sealed class WeightLoader(GpuDevice device, Checkpoint checkpoint, Qwen3MoeConfig config, LoadOptions options, CancellationToken cancellation) : IWeightSource, IDisposable
{
    private readonly StoredWeights stored = new(checkpoint, config);
    private readonly StagedUpload? staging = Staging(device, checkpoint, options, cancellation);
    private readonly LoadRate rate = new(TimeProvider.System);
    private long loadedBytes;

    /// <inheritdoc/>
    public DeviceBuffer<BFloat16> Gain(string name, int width)
    {
        TensorInfo info = Require(name, width);
        if (info.Type != TensorType.BF16)
            throw Fail($"'{name}' is {info.Type.Spelling()}; norm weights must be BF16");
        ReadOnlySpan<BFloat16> gains = MemoryMarshal.Cast<byte, BFloat16>(checkpoint.Bytes(name));
        for (int i = 0; i < gains.Length; i++)
            if (!float.IsFinite((float)gains[i]))
                throw Fail($"'{name}': element {i} is {(float)gains[i]}; norm weights must be finite");
        DeviceBuffer<BFloat16> buffer = device.Allocate<BFloat16>(width);
        try
        {
            if (staging is null)
                buffer.CopyFrom(device.DefaultStream, gains);
            else
                staging.Copy(buffer, gains, 0);
        }
        catch
        {
            Abandon();
            buffer.Dispose();
            throw;
        }
        Done(info, info.ByteLength);
        return buffer;
    }

    /// <inheritdoc/>
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
            Abandon();
            matrices.ForEach(m => m.Item1.Dispose());
            throw;
        }
    }

    /// <inheritdoc/>
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
            Abandon();
            matrices.ForEach(m => m.Item1.Dispose());
            throw;
        }
    }

    /// <inheritdoc/>
    public QuantizedMatrix Matrix(string name, int rows, int k) => Stack(k, 1, (name, rows));

    /// <inheritdoc/>
    public void Complete() => staging?.Complete();

    /// <inheritdoc/>
    public void Abandon() => staging?.Abandon();

    /// <summary>Releases the staging memory.</summary>
    public void Dispose() => staging?.Dispose();

    // The CPU device's memory is the host's: a copy between the two would only be one more.
    private static StagedUpload? Staging(GpuDevice device, Checkpoint checkpoint, LoadOptions options, CancellationToken cancellation)
    {
        long bytes = Math.Min(options.StagingBytes ?? (device.IsCuda ? StagedUpload.DefaultBytes : 0), checkpoint.TotalBytes);
        return bytes == 0 ? null : new StagedUpload(device, (int)bytes, cancellation);
    }

    // Rows can share a matrix when they are stored alike and every tensor but a matrix's last ends on a scale block's edge.
    private bool CanFuse((string Name, int Rows)[] parts, int partsPerMatrix = int.MaxValue)
    {
        int perMatrix = Math.Min(partsPerMatrix, parts.Length);
        TensorType type = checkpoint.Info(parts[0].Name).Type;
        // One multiplier a matrix is one tensor's.
        if (perMatrix > 1 && stored.Format(parts[0].Name).HasGroupScales() && !options.DequantizeToBf16)
            return false;
        for (int i = 0; i < parts.Length; i++)
        {
            bool last = (i + 1) % perMatrix == 0;
            bool onEdge = last || stored.Block(parts[i].Name) is not { } block || parts[i].Rows % block.Rows == 0;
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
            cancellation.ThrowIfCancellationRequested();
            TensorInfo info = stored.Require(name, rows, k);
            if (info.Type != type)
                throw Fail($"'{name}' is {info.Type.Spelling()}, '{parts[0].Name}' is {type.Spelling()}; experts of one layer must be stored alike");
        }
        WeightFormat format = stored.Format(parts[0].Name);
        var matrix = new QuantizedMatrix(device, options.DequantizeToBf16 ? WeightFormat.Bf16 : format, n, k, count, stored.Block(parts[0].Name));
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
            Abandon();
            matrix.Dispose();
            throw;
        }
    }

    private void Write(QuantizedMatrix matrix, int slab, int firstRow, string name, int rows)
    {
        cancellation.ThrowIfCancellationRequested();
        StoredMatrix source = stored.Open(name, rows, matrix.K);
        foreach (TensorInfo companion in source.Companions.Where(c => c != source.Residual))
            Done(companion, companion.ByteLength);
        int step = source.RowsAtOnce(options.BytesAtOnce);
        for (int row = 0; row < rows; row += step)
        {
            cancellation.ThrowIfCancellationRequested();
            // Errors count rows from the part's first.
            int count = Math.Min(step, rows - row);
            WriteRows(matrix, (slab, firstRow + row), source, (row, count), row == 0 ? $"'{name}'" : $"'{name}' from row {row}");
            Done(source.Info, count * source.Format.Terms() * source.Format.RowBytes(matrix.K));
        }
    }

    private void WriteRows(QuantizedMatrix matrix, (int Slab, int First) target, StoredMatrix source, (int First, int Count) rows, string part)
    {
        try
        {
            if (matrix.Format == source.Format)
            {
                var stored = new MatrixRows
                {
                    First = target.First,
                    Count = rows.Count,
                    Codes = source.Codes(rows.First, rows.Count),
                    Residual = source.ResidualCodes(rows.First, rows.Count),
                    Scales = source.ScalesOf(rows.First, rows.Count),
                    GroupScales = source.GroupScales,
                    ZeroPoints = source.ZeroPointsOf(rows.First, rows.Count),
                };
                matrix.Write(target.Slab, stored, part, staging);
                return;
            }
            float[] values = Quantizer.Dequantize(source.Rows(rows.First, rows.Count));
            HostMatrix expanded = Quantizer.Quantize(values, rows.Count, matrix.K, WeightFormat.Bf16);
            matrix.Write(target.Slab, new MatrixRows { First = target.First, Count = rows.Count, Codes = expanded.Codes }, part, staging);
        }
        catch (ArgumentException e)
        {
            throw Fail(e.Message, e);
        }
    }

    private TensorInfo Require(string name, params long[] shape)
    {
        cancellation.ThrowIfCancellationRequested();
        TensorInfo info = checkpoint.Info(name);
        return info.Shape.SequenceEqual(shape)
            ? info
            : throw Fail($"'{name}' has the shape [{string.Join(", ", info.Shape)}]; config.json asks for [{string.Join(", ", shape)}]");
    }

    private void Done(TensorInfo info, long bytes)
    {
        loadedBytes += bytes;
        if (options.Progress is null)
            return;
        rate.Update(loadedBytes);
        long total = checkpoint.TotalBytes;
        options.Progress.Report(new LoadProgress(loadedBytes, total, info.Name) { BytesPerSecond = rate.BytesPerSecond, TimeLeft = rate.TimeFor(Math.Max(0, total - loadedBytes)) });
    }

    private ModelFileException Fail(string problem, Exception? inner = null) => new(Path.GetFileName(checkpoint.Folder), problem, inner);
}
