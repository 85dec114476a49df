using CsCheck;

namespace GpuKit.Ilgpu.Tests.Properties;

/// <summary>
/// Checks a statement on random values, shrinking what breaks it. A failure prints the value and a seed; with that in <c>CsCheck_Seed</c> the
/// run starts there.
/// </summary>
internal static class Property
{
    /// <summary>Unicode text: all planes, what splits and composes, controls, and surrogates that are alone.</summary>
    public static readonly Gen<string> Text = Gen.OneOf(
        Gen.Char.Array[0, 40].Select(chars => new string(chars)),
        Gen.Int[0, 0x10FFFF].Array[0, 20].Select(runes => string.Concat(runes.Select(Rune))),
        Gen.OneOf("a", "The ", "don't", "'S", " 12345", "\n", "\r\n", "  ", "\t", "\u00A0", "e\u0301", "\u00E9", "\u1112\u1161\u11AB", "日本", "🙂", "\ud83d", "\ude00", "<|im_end|>", "<|im_start|>", "<|", "|>", "\0", "\u200D")
            .Array[0, 30].Select(string.Concat));

    /// <summary>Asserts it on this many values, one after the other: the devices are shared.</summary>
    public static void Holds<T>(Gen<T> values, int times, Action<T> statement) => values.Sample(statement, iter: times, threads: 1);

    /// <summary>Text as any UTF-8 encoder takes it: surrogates that are alone are U+FFFD.</summary>
    public static string WithoutLoneSurrogates(string text) => System.Text.Encoding.UTF8.GetString(System.Text.Encoding.UTF8.GetBytes(text));

    private static string Rune(int codePoint) => codePoint is >= 0xD800 and < 0xE000 ? ((char)codePoint).ToString() : char.ConvertFromUtf32(codePoint);
}
