using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>Reads one tensor's entry of the header: <c>{"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}</c>.</summary>
internal readonly struct SafetensorsTensorReader(string fileName, string name)
{
    public TensorInfo Read(ref Utf8JsonReader reader)
    {
        if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject)
        {
            throw Wrong("is not an object");
        }

        TensorType? type = null;
        long[]? shape = null;
        long[]? offsets = null;
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            if (type is null && reader.ValueTextEquals("dtype"u8))
            {
                type = ReadType(ref reader);
            }
            else if (shape is null && reader.ValueTextEquals("shape"u8))
            {
                shape = ReadNumbers(ref reader, "shape", SafetensorsHeader.MaxDimensions);
            }
            else if (offsets is null && reader.ValueTextEquals("data_offsets"u8))
            {
                offsets = ReadNumbers(ref reader, "data_offsets", 2);
            }
            else
            {
                throw Wrong($"has the key '{Excerpt.Of(reader.ValueSpan)}' twice or beyond dtype, shape and data_offsets");
            }
        }

        if (type is null || shape is null || offsets is not { Length: 2 })
        {
            throw Wrong($"lacks {(type is null ? "dtype" : shape is null ? "shape" : "data_offsets [begin, end]")}");
        }

        return Checked(type.Value, shape, offsets[0], offsets[1]);
    }

    private TensorType ReadType(ref Utf8JsonReader reader)
    {
        if (reader.Read() && reader.TokenType == JsonTokenType.String
            && TensorTypes.TryParse(ref reader, out TensorType type))
        {
            return type;
        }

        throw Wrong($"has dtype {Excerpt.Of(reader.ValueSpan)}; known are {TensorTypes.AllSpellings}");
    }

    private long[] ReadNumbers(ref Utf8JsonReader reader, string field, int max)
    {
        if (!reader.Read() || reader.TokenType != JsonTokenType.StartArray)
        {
            throw Wrong($"has a {field} that is not a list");
        }

        Span<long> numbers = stackalloc long[max];
        int count = 0;
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            if (count == max)
            {
                throw Wrong($"has more than {max} numbers in {field}");
            }

            // "-0" parses as 0 but is no count.
            if (reader.TokenType != JsonTokenType.Number || reader.ValueSpan[0] == (byte)'-' || !reader.TryGetInt64(out numbers[count]))
            {
                throw Wrong($"has {Excerpt.Of(reader.ValueSpan)} in {field}; whole numbers from 0 to {long.MaxValue} are needed");
            }

            count++;
        }

        return numbers[..count].ToArray();
    }

    private TensorInfo Checked(TensorType type, long[] shape, long begin, long end)
    {
        if (end < begin)
        {
            throw Wrong($"has data_offsets [{begin}, {end}]; the end lies before the beginning");
        }

        long bytes = type.SizeInBytes();
        try
        {
            foreach (long extent in shape)
            {
                bytes = checked(bytes * extent);
            }
        }
        catch (OverflowException e)
        {
            throw new ModelFileException(fileName, $"tensor '{Excerpt.Of(name)}' of shape [{string.Join(", ", shape)}] has more bytes than a 64-bit number counts", e);
        }

        return bytes == end - begin
            ? new TensorInfo(name, type, shape, begin, bytes)
            : throw Wrong($"is {type.Spelling()} [{string.Join(", ", shape)}], which takes {bytes} bytes; its data_offsets [{begin}, {end}] hold {end - begin}");
    }

    private ModelFileException Wrong(string problem) => new(fileName, $"tensor '{Excerpt.Of(name)}' {problem}");
}
