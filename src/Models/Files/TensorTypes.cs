using System.Text;
using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>Sizes and file spellings of the <see cref="TensorType"/>s.</summary>
public static class TensorTypes
{
    // Indexed by the enum: one list keeps sizes, spellings and the parser together.
    private static readonly (string Spelling, byte[] Utf8, int Bytes)[] Types =
    [
        .. new (string, int)[]
        {
            ("F64", 8), ("F32", 4), ("F16", 2), ("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1),
            ("I64", 8), ("I32", 4), ("I16", 2), ("I8", 1), ("U64", 8), ("U32", 4), ("U16", 2), ("U8", 1), ("BOOL", 1),
        }.Select(t => (t.Item1, Encoding.ASCII.GetBytes(t.Item1), t.Item2)),
    ];

    internal static string AllSpellings { get; } = string.Join(", ", Types.Select(t => t.Spelling));

    /// <summary>Bytes of one element.</summary>
    /// <param name="type">The element type.</param>
    public static int SizeInBytes(this TensorType type) => Types[(int)type].Bytes;

    /// <summary>The type as a safetensors file spells it, for example <c>F8_E4M3</c>.</summary>
    /// <param name="type">The element type.</param>
    public static string Spelling(this TensorType type) => Types[(int)type].Spelling;

    /// <summary>The type that the string the reader stands on spells, escapes or not.</summary>
    internal static bool TryParse(ref Utf8JsonReader reader, out TensorType type)
    {
        for (int i = 0; i < Types.Length; i++)
        {
            if (reader.ValueTextEquals(Types[i].Utf8))
            {
                type = (TensorType)i;
                return true;
            }
        }

        type = default;
        return false;
    }
}
