using System.Globalization;
using System.Numerics;
using System.Text;

namespace GpuKit.Ilgpu.Tests.Fuzzing;

/// <summary>
/// Breaks a well-formed JSON text in one to three places between its tokens: the result mostly parses and says something else.
/// Members twice or gone, numbers off by one, huge or negative, values of other types, keys exchanged, escapes, nesting, truncation.
/// </summary>
internal sealed class JsonMutation(byte[] good)
{
    private static readonly byte[][] Values =
    [
        .. new[]
        {
            "0", "-0", "-1", "1", "1.5", "1e0", "1e400", "-1e400", "1e-400", "00", "0x10", "NaN", "2147483647", "2147483648", "4294967296",
            "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616", "-9223372036854775809", new string('9', 400),
            "true", "false", "null", "nul", "\"\"", "\"\\u0000\"", "\"\\ud800\"", "\"\\udc00\\ud800\"", "\"\\ud83d\\ude00\"", "\"..\"", "\"/etc/passwd\"",
            "\"U8\"", "\"F64\"", "\"__metadata__\"", "\"default\"", "\"\u00E9\u0301\"", "\"" + new string('a', 300) + "\"", "[]", "{}", "[0]", "[[]]", "{\"a\":0}",
            new string('[', 70) + new string(']', 70), string.Concat(Enumerable.Repeat("{\"a\":", 40)) + "0" + new string('}', 40),
        }.Select(Encoding.UTF8.GetBytes),
        // Not UTF-8: a stray byte, a cut sequence, an overlong slash, an encoded surrogate.
        [(byte)'"', 0xFF, (byte)'"'], [(byte)'"', 0xE2, 0x82, (byte)'"'], [(byte)'"', 0xC0, 0xAF, (byte)'"'], [(byte)'"', 0xED, 0xA0, 0x80, (byte)'"'],
    ];

    private readonly List<byte[]> tokens = JsonTokens.Of(good);

    public byte[] Of(Random random)
    {
        var changed = new List<byte[]>(tokens);
        for (int edits = random.Next(1, 4); edits > 0 && changed.Count > 2; edits--)
            Edit(changed, random);
        byte[] text = [.. changed.SelectMany(t => t)];
        return random.Next(40) == 0 ? text[..random.Next(text.Length)] : text;
    }

    private static void Edit(List<byte[]> tokens, Random random)
    {
        int at = random.Next(tokens.Count);
        switch (random.Next(14))
        {
            case 0 or 1:
                Replace(tokens, Next(tokens, at, t => !JsonTokens.IsMark(t)), Values[random.Next(Values.Length)]);
                break;
            case 2 or 3:
                int number = Next(tokens, at, JsonTokens.IsNumber);
                Replace(tokens, number, Nudged(tokens[number], random));
                break;
            case 4:
                tokens.RemoveAt(at);
                break;
            case 5:
                tokens.Insert(at, tokens[random.Next(tokens.Count)]);
                break;
            case 6:
                int other = random.Next(tokens.Count);
                (tokens[at], tokens[other]) = (tokens[other], tokens[at]);
                break;
            case 7:
                RepeatMember(tokens, at, Key(tokens, random.Next(tokens.Count)));
                break;
            case 8:
                RemoveMember(tokens, Key(tokens, at));
                break;
            case 9:
                Replace(tokens, Next(tokens, at, JsonTokens.IsString), tokens[Next(tokens, random.Next(tokens.Count), JsonTokens.IsString)]);
                break;
            case 10:
                int text = Next(tokens, at, JsonTokens.IsString);
                Replace(tokens, text, Escaped(tokens[text], random));
                break;
            case 11:
                Wrap(tokens, Next(tokens, at, t => !JsonTokens.IsMark(t)), random.Next(2) == 0);
                break;
            case 12:
                CopyValue(tokens, at, Next(tokens, random.Next(tokens.Count), t => !JsonTokens.IsMark(t) || JsonTokens.Is(t, '[') || JsonTokens.Is(t, '{')));
                break;
            default:
                tokens.Insert(at, [" \t\r\n\0/"u8[random.Next(6)]]);
                break;
        }
    }

    // The first token of a kind at or after a place, around the end; the place itself when there is none.
    private static int Next(List<byte[]> tokens, int from, Func<byte[], bool> isWanted)
    {
        for (int i = 0; i < tokens.Count; i++)
        {
            int at = (from + i) % tokens.Count;
            if (isWanted(tokens[at]))
                return at;
        }

        return from;
    }

    private static int Key(List<byte[]> tokens, int from)
    {
        for (int i = 0; i < tokens.Count; i++)
        {
            int at = (from + i) % tokens.Count;
            if (at + 1 < tokens.Count && JsonTokens.IsString(tokens[at]) && JsonTokens.Is(tokens[at + 1], ':'))
                return at;
        }

        return -1;
    }

    private static void Replace(List<byte[]> tokens, int at, byte[] by) => tokens[at] = by;

    private static byte[] Nudged(byte[] token, Random random)
    {
        if (!BigInteger.TryParse(Encoding.ASCII.GetString(token), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out BigInteger number))
            return token;
        BigInteger nudged = random.Next(6) switch { 0 => number + 1, 1 => number - 1, 2 => -number, 3 => number * 2, 4 => number / 2, _ => number + random.Next(-64, 65) };
        return Encoding.ASCII.GetBytes(nudged.ToString(CultureInfo.InvariantCulture));
    }

    private static byte[] Escaped(byte[] text, Random random)
    {
        if (text.Length < 3)
            return text;
        int at = random.Next(1, text.Length - 1);
        return text[at] is (byte)'\\' or >= 0x80 || text[at - 1] == '\\' ? text : [.. text[..at], .. Encoding.ASCII.GetBytes($"\\u{(int)text[at]:x4}"), .. text[(at + 1)..]];
    }

    // Before another member of the same or of another object.
    private static void RepeatMember(List<byte[]> tokens, int near, int key)
    {
        int target = Key(tokens, near);
        if (key < 0 || target < 0)
            return;
        List<byte[]> member = tokens.GetRange(key, JsonTokens.ValueEnd(tokens, key + 2) - key);
        tokens.InsertRange(target, [.. member, ","u8.ToArray()]);
    }

    private static void RemoveMember(List<byte[]> tokens, int key)
    {
        if (key < 0)
            return;
        int end = JsonTokens.ValueEnd(tokens, key + 2);
        bool commaFollows = end < tokens.Count && JsonTokens.Is(tokens[end], ',');
        bool commaLeads = !commaFollows && key > 0 && JsonTokens.Is(tokens[key - 1], ',');
        tokens.RemoveRange(commaLeads ? key - 1 : key, end - key + (commaFollows || commaLeads ? 1 : 0));
    }

    private static void Wrap(List<byte[]> tokens, int at, bool inList)
    {
        tokens.Insert(at + 1, inList ? "]"u8.ToArray() : "}"u8.ToArray());
        tokens.Insert(at, inList ? "["u8.ToArray() : "{\"a\":"u8.ToArray());
    }

    private static void CopyValue(List<byte[]> tokens, int near, int source)
    {
        List<byte[]> value = tokens.GetRange(source, JsonTokens.ValueEnd(tokens, source) - source);
        int target = Next(tokens, near, t => !JsonTokens.IsMark(t));
        tokens.RemoveAt(target);
        // A large value copied into itself again and again would only make the run slow.
        tokens.InsertRange(target, value.Take(200));
    }
}
