namespace GpuKit.Ilgpu.Models;

/// <summary>
/// The spelling of bytes in byte-level vocabularies: every byte is one printable character, so that tokens can be written as
/// text. Printable Latin-1 stands for itself; the other 68 bytes are, in order, U+0100 and following.
/// </summary>
internal static class ByteLevelAlphabet
{
    private const char FirstSubstitute = '\u0100';

    private static readonly char[] CharOfByte = MakeChars();
    private static readonly Dictionary<char, byte> ByteOf =
        Enumerable.Range(0, 256).ToDictionary(b => CharOfByte[b], b => (byte)b);

    public static char CharOf(byte value) => CharOfByte[value];

    /// <summary>Appends the bytes that a vocabulary entry spells; false when a character spells none.</summary>
    public static bool TryAppendBytes(string token, List<byte> bytes)
    {
        foreach (char c in token)
        {
            if (!ByteOf.TryGetValue(c, out byte value))
            {
                return false;
            }

            bytes.Add(value);
        }

        return true;
    }

    private static char[] MakeChars()
    {
        var chars = new char[256];
        char substitute = FirstSubstitute;
        for (int b = 0; b < chars.Length; b++)
        {
            // Not printable: controls, space, no-break space (0xA0) and soft hyphen (0xAD).
            bool printable = b is (> 0x20 and < 0x7F) or (> 0xA0 and not 0xAD);
            chars[b] = printable ? (char)b : substitute++;
        }

        return chars;
    }
}
