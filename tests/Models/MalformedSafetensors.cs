using System.Text;
using static GpuKit.Ilgpu.Tests.Models.SafetensorsBytes;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>The named malformed files: what is wrong, and the bytes.</summary>
internal static class MalformedSafetensors
{
    private const string A = "\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]";

    public static Dictionary<string, byte[]> All { get; } = Framing()
        .Concat(Json())
        .Concat(Entries())
        .Concat(Numbers())
        .Concat(Layouts())
        .ToDictionary(c => c.Name, c => c.Bytes);

    private static IEnumerable<(string Name, byte[] Bytes)> Framing()
    {
        byte[] good = Encoding.UTF8.GetBytes(GoodHeader);
        yield return ("empty file", []);
        yield return ("one byte", [1]);
        yield return ("seven bytes", new byte[7]);
        yield return ("header of length zero", File([], 0));
        yield return ("header length beyond the file", File(good, 32, claimed: 10_000));
        yield return ("header length one too long", File(good, 0, claimed: (ulong)good.Length + 1));
        yield return ("header length one too short", File(good, 32, claimed: (ulong)good.Length - 1));
        yield return ("header length above the limit", File(good, 32, claimed: 100_000_001));
        yield return ("header length of 2^31", File(good, 32, claimed: 1UL << 31));
        yield return ("header length of 2^63", File(good, 32, claimed: 1UL << 63));
        yield return ("header length of 2^64 - 1", File(good, 32, claimed: ulong.MaxValue));
        yield return ("header length in big-endian", File(good, 32, claimed: 0x9100000000000000));
        yield return ("data cut by one byte", File(GoodHeader, 31));
        yield return ("data one byte too long", File(GoodHeader, 33));
        yield return ("no data", File(GoodHeader, 0));
        yield return ("a zip archive", [0x50, 0x4B, 3, 4, .. new byte[100]]);
        yield return ("text of a Git LFS pointer", Encoding.ASCII.GetBytes("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"));
    }

    private static IEnumerable<(string Name, byte[] Bytes)> Json()
    {
        yield return ("white space before the object", File(" " + GoodHeader));
        yield return ("byte order mark", File("\uFEFF" + GoodHeader));
        yield return ("an array", File("[]", 0));
        yield return ("a string", File("\"a\"", 0));
        yield return ("null", File("null", 0));
        yield return ("only white space", File("    ", 0));
        yield return ("unclosed object", File(GoodHeader[..^1]));
        yield return ("a second object", File(GoodHeader + "{}"));
        yield return ("text after the object", File(GoodHeader + "x"));
        yield return ("zero bytes after the object", File(GoodHeader + "\0\0"));
        yield return ("trailing comma", With("}}", "},}"));
        yield return ("comment", With("{\"__", "{/* */\"__"));
        yield return ("single quotes", With("\"a\"", "'a'"));
        yield return ("invalid UTF-8 in a name", File([.. "{\""u8, 0xFF, 0xFE, .. "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}"u8], 0));
        yield return ("overlong UTF-8 in a name", File([.. "{\""u8, 0xC0, 0xAF, .. "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}"u8], 0));
        yield return ("lone surrogate in a name", With("\"a\"", "\"\\ud800\""));
        yield return ("lone surrogate in metadata", With("\"pt\"", "\"\\udc00\""));
        yield return ("lone surrogate in a metadata key", With("\"format\"", "\"\\ud83d\""));
        yield return ("lone surrogate in a field's name", With("\"dtype\":\"F32\"", "\"\\ud800\":\"F32\""));
        yield return ("control character in a name", With("\"a\"", "\"a\n\""));
        yield return ("unknown escape", With("\"a\"", "\"\\x\""));
        yield return ("nesting without end", File(new string('[', 10_000), 0));
        yield return ("nested objects", File(string.Concat(Enumerable.Repeat("{\"a\":", 10_000)), 0));
    }

    private static IEnumerable<(string Name, byte[] Bytes)> Entries()
    {
        yield return ("tensor twice", With("\"b\":", "\"a\":"));
        yield return ("tensor twice, once escaped", With("\"b\":", "\"\\u0061\":"));
        yield return ("tensor is null", With("{" + A + "}", "null"));
        yield return ("tensor is a list", With("{" + A + "}", "[]"));
        yield return ("tensor is empty", With("{" + A + "}", "{}"));
        yield return ("no dtype", With("\"dtype\":\"F32\",", ""));
        yield return ("no shape", With("\"shape\":[2,3],", ""));
        yield return ("no data_offsets", With(",\"data_offsets\":[0,24]", ""));
        yield return ("dtype twice", With("\"dtype\":\"F32\"", "\"dtype\":\"F32\",\"dtype\":\"F32\""));
        yield return ("shape twice", With("\"shape\":[2,3]", "\"shape\":[2,3],\"shape\":[2,3]"));
        yield return ("data_offsets twice", With("\"data_offsets\":[0,24]", "\"data_offsets\":[0,24],\"data_offsets\":[0,24]"));
        yield return ("a field too many", With("\"dtype\":\"F32\"", "\"dtype\":\"F32\",\"stride\":[3,1]"));
        yield return ("unknown dtype", With("\"F32\"", "\"F33\""));
        yield return ("dtype in lower case", With("\"F32\"", "\"f32\""));
        yield return ("empty dtype", With("\"F32\"", "\"\""));
        yield return ("dtype is a number", With("\"F32\"", "32"));
        yield return ("dtype is null", With("\"F32\"", "null"));
        yield return ("metadata twice", With("\"a\":{" + A + "}", "\"__metadata__\":{}"));
        yield return ("metadata is a list", With("{\"format\":\"pt\"}", "[\"pt\"]"));
        yield return ("metadata is a string", With("{\"format\":\"pt\"}", "\"pt\""));
        yield return ("metadata holds a number", With("\"pt\"", "1"));
        yield return ("metadata holds null", With("\"pt\"", "null"));
        yield return ("metadata holds an object", With("\"pt\"", "{}"));
        yield return ("metadata key twice", With("\"format\":\"pt\"", "\"format\":\"pt\",\"format\":\"tf\""));
        yield return ("name of 2,000 bytes", With("\"a\"", "\"" + new string('a', 2_000) + "\""));
    }

    private static IEnumerable<(string Name, byte[] Bytes)> Numbers()
    {
        yield return ("shape is a number", With("[2,3]", "6"));
        yield return ("shape is a string", With("[2,3]", "\"2,3\""));
        yield return ("shape holds a string", With("[2,3]", "[\"2\",3]"));
        yield return ("shape holds null", With("[2,3]", "[null,3]"));
        yield return ("shape holds a list", With("[2,3]", "[[2],3]"));
        yield return ("negative extent", With("[2,3]", "[-2,-3]"));
        yield return ("negative zero extent", With("[2,3]", "[-0,3]"));
        yield return ("fractional extent", With("[2,3]", "[2.0,3]"));
        yield return ("extent with exponent", With("[2,3]", "[2e0,3]"));
        yield return ("extent of 2^63", With("[2,3]", "[9223372036854775808,3]"));
        yield return ("shape overflows to its byte count", With("[2,3]", "[4611686018427387910,4]"));
        yield return ("shape overflows before a zero", With("[2,3]", "[9223372036854775807,9223372036854775807,0]"));
        yield return ("nine extents", With("[2,3]", "[1,1,1,1,1,1,1,2,3]"));
        yield return ("shape too large", With("[2,3]", "[2,4]"));
        yield return ("shape too small", With("[2,3]", "[2,2]"));
        yield return ("scalar for six elements", With("[2,3]", "[]"));
        yield return ("wider dtype", With("\"F32\"", "\"F64\""));
        yield return ("offsets empty", With("[0,24]", "[]"));
        yield return ("one offset", With("[0,24]", "[0]"));
        yield return ("three offsets", With("[0,24]", "[0,24,32]"));
        yield return ("offsets reversed", With("[0,24]", "[24,0]"));
        yield return ("negative offset", With("[0,24]", "[-24,0]"));
        yield return ("fractional offset", With("[0,24]", "[0,24.0]"));
        yield return ("offset as text", With("[0,24]", "[\"0\",\"24\"]"));
        yield return ("offset of 2^64", With("[0,24]", "[0,18446744073709551616]"));
    }

    private static IEnumerable<(string Name, byte[] Bytes)> Layouts()
    {
        yield return ("first tensor does not start at 0", File(GoodHeader.Replace("[0,24]", "[8,32]", StringComparison.Ordinal).Replace("[24,32]", "[32,40]", StringComparison.Ordinal), 40));
        yield return ("hole between tensors", File(GoodHeader.Replace("[24,32]", "[28,36]", StringComparison.Ordinal), 36));
        yield return ("overlap of one byte", With("[24,32]", "[23,31]"));
        yield return ("same bytes twice", File("""{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}""", 4));
        yield return ("one within another", File("""{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}""", 8));
        yield return ("last tensor beyond the file", File(GoodHeader, 28));
        yield return ("offsets near 2^63", With("[24,32]", "[9223372036854775799,9223372036854775807]"));
        yield return ("data without tensors", File("{}", 1));
        yield return ("empty tensor beyond the data", File("""{"a":{"dtype":"U8","shape":[0],"data_offsets":[5,5]}}""", 0));
    }
}
