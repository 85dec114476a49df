namespace GpuKit.Ilgpu.Models;

/// <summary>
/// The rule that every data byte belongs to exactly one tensor: no overlap can alias two weights, no hole can hide data, and
/// the data ends with the file.
/// </summary>
internal static class SafetensorsLayout
{
    public static void Check(string fileName, IReadOnlyCollection<TensorInfo> tensors, long dataBytes)
    {
        TensorInfo[] ordered = [.. tensors];
        // Tensors without elements share the place of a neighbour and sort before it.
        Array.Sort(ordered, static (a, b) =>
            a.Offset != b.Offset ? a.Offset.CompareTo(b.Offset) : a.ByteLength.CompareTo(b.ByteLength));

        long expected = 0;
        TensorInfo? before = null;
        foreach (TensorInfo tensor in ordered)
        {
            if (tensor.Offset != expected)
            {
                string what = tensor.Offset < expected ? "overlaps" : "leaves a hole after";
                string other = before is null ? "the start of the data" : $"'{Excerpt.Of(before.Name)}'";
                throw new ModelFileException(
                    fileName, $"tensor '{Excerpt.Of(tensor.Name)}' starts at byte {tensor.Offset} of the data and {what} {other}; {expected} would be right");
            }

            // Offset + length cannot overflow: both come from a checked [begin, end].
            expected = tensor.Offset + tensor.ByteLength;
            if (expected > dataBytes)
            {
                throw new ModelFileException(fileName, $"tensor '{Excerpt.Of(tensor.Name)}' ends at byte {expected} of the data, the file has {dataBytes}");
            }

            before = tensor;
        }

        if (expected != dataBytes)
        {
            throw new ModelFileException(fileName, $"its tensors end at byte {expected} of the data, the file has {dataBytes}");
        }
    }
}
