namespace GpuKit.Ilgpu.Tests.Fuzzing;

/// <summary>Breaks a well-formed text in one to three places: bytes changed, removed, inserted, or a stretch repeated elsewhere.</summary>
internal static class ByteMutation
{
    // Mostly what means something in JSON, so that a mutation often survives the first checks.
    private static readonly byte[] Alphabet = "{}[]\",:0123456789-.eE\\u abdtpFBI_"u8.ToArray();

    public static byte[] Of(byte[] good, Random random)
    {
        var bytes = new List<byte>(good);
        for (int edits = random.Next(1, 4); edits > 0 && bytes.Count > 2; edits--)
        {
            int at = random.Next(bytes.Count);
            switch (random.Next(5))
            {
                case 0:
                    bytes[at] = Alphabet[random.Next(Alphabet.Length)];
                    break;
                case 1:
                    bytes[at] = (byte)random.Next(256);
                    break;
                case 2:
                    bytes.RemoveRange(at, Math.Min(random.Next(1, 8), bytes.Count - at));
                    break;
                case 3:
                    bytes.Insert(at, Alphabet[random.Next(Alphabet.Length)]);
                    break;
                default:
                    byte[] copy = [.. bytes.GetRange(at, Math.Min(random.Next(1, 60), bytes.Count - at))];
                    bytes.InsertRange(random.Next(bytes.Count), copy);
                    break;
            }
        }

        return [.. bytes];
    }
}
