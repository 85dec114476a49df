using System.Text;
using Microsoft.ML.Tokenizers;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// The byte-level BPE tokenizer of a model folder (<c>tokenizer.json</c>), giving the ids that Hugging Face's tokenizers
/// give. Safe for use by several threads.
/// </summary>
/// <remarks>
/// Lone surrogates in a text count as U+FFFD, as in any UTF-8 encoder. No regular expression of the file is executed.
/// </remarks>
public sealed class Tokenizer
{
    // What NFC saves at most: a Hangul syllable or the Kelvin sign of three bytes becomes a third of its parts.
    private const int MostBytesAByteOfNfc = 3;

    private readonly BpeTokenizer bpe;
    private readonly TokenizerFile file;
    private readonly TokenBytes bytes;
    private readonly AddedTokenSet added;
    private readonly Dictionary<string, int> addedIds;
    private readonly HashSet<int> specialIds;
    private readonly TokenizerOptions options;

    private Tokenizer(TokenizerFile file, TokenizerOptions options)
    {
        this.file = file;
        this.options = options;
        bytes = TokenBytes.Create(file);
        added = new AddedTokenSet(file.Added);
        addedIds = file.Added.ToDictionary(t => t.Content, t => t.Id, StringComparer.Ordinal);
        specialIds = [.. file.Added.Where(t => t.Special).Select(t => t.Id)];
        bpe = BpeTokenizer.Create(new BpeOptions(file.Vocabulary)
        {
            Merges = file.Merges,
            ByteLevel = true,
            PreTokenizer = new TextSplitter(file.DigitsPerPiece, options.MaxUnbrokenChars),
        });
    }

    /// <summary>One more than the largest id. The model's embedding may have more rows.</summary>
    public int VocabularySize => bytes.Count;

    /// <summary>Loads the tokenizer of a folder.</summary>
    /// <param name="folder">A Hugging Face model folder.</param>
    /// <param name="options">Limits on texts; null for the standard ones.</param>
    /// <exception cref="ModelFileException">The file is missing or malformed, or asks for something that is not supported; it is named.</exception>
    /// <exception cref="PlatformNotSupportedException">Unicode normalisation is switched off (invariant globalization) and the tokenizer needs it.</exception>
    public static Tokenizer Load(string folder, TokenizerOptions? options = null)
    {
        TokenizerFile file = TokenizerFile.Load(ModelFolder.Open(folder));

        // Under invariant globalization the call does nothing and returns the text as it was: ids would be wrong silently.
        if (file.NormalizesToNfc && "e\u0301".Normalize(NormalizationForm.FormC) != "\u00E9")
        {
            throw new PlatformNotSupportedException(
                "the tokenizer needs Unicode normalisation, which this process has switched off; run without InvariantGlobalization and with ICU installed");
        }

        try
        {
            return new Tokenizer(file, options ?? new TokenizerOptions());
        }
        catch (Exception e) when (e is InvalidOperationException or ArgumentException)
        {
            throw new ModelFileException(TokenizerFile.FileName, $"vocabulary and merges do not fit together: {Excerpt.Of(e.Message)}", e);
        }
    }

    /// <summary>The id of a token: an added token by its text, any other by its byte-level spelling (<c>Ġthe</c>).</summary>
    /// <param name="token">The token.</param>
    /// <returns>Its id, or null when there is no such token.</returns>
    public int? TokenId(string token) =>
        addedIds.TryGetValue(token, out int id) || file.Vocabulary.TryGetValue(token, out id) ? id : null;

    /// <summary>Whether an id is a special token, which controls the model and is no text.</summary>
    /// <param name="id">The id.</param>
    public bool IsSpecial(int id) => specialIds.Contains(id);

    /// <summary>The ids of a text that the caller wrote: special tokens in it are recognised.</summary>
    /// <param name="text">The text.</param>
    /// <exception cref="ArgumentException">The text exceeds a limit of <see cref="TokenizerOptions"/>.</exception>
    public IReadOnlyList<int> Encode(string text) => Encode(text, []);

    /// <summary>
    /// The ids of a text that somebody else wrote: special tokens in it are ordinary text. Added tokens that are not special
    /// (<c>&lt;think&gt;</c>) stay single ids.
    /// </summary>
    /// <param name="text">The text.</param>
    /// <exception cref="ArgumentException">The text exceeds a limit of <see cref="TokenizerOptions"/>.</exception>
    public IReadOnlyList<int> EncodePlain(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return Encode(text, [new TextStretch(0, text.Length)]);
    }

    /// <summary>The ids of a text of which some stretches were written by somebody else: special tokens that touch these are ordinary text.</summary>
    /// <param name="text">The text.</param>
    /// <param name="untrusted">The stretches, in order and without overlap.</param>
    /// <exception cref="ArgumentException">The text exceeds a limit of <see cref="TokenizerOptions"/>.</exception>
    public IReadOnlyList<int> Encode(string text, IReadOnlyList<TextStretch> untrusted)
    {
        ArgumentNullException.ThrowIfNull(text);
        ArgumentNullException.ThrowIfNull(untrusted);
        int bytes = Encoding.UTF8.GetByteCount(text);
        if (bytes > options.MaxPromptBytes)
        {
            throw new ArgumentException($"the text has {bytes} bytes; at most {options.MaxPromptBytes} are accepted", nameof(text));
        }

        var ids = new List<int>(text.Length / 3 + 1);
        for (int at = 0; at < text.Length;)
        {
            AddedToken? token = added.Find(text, at, untrusted, out int start);
            EncodeBetween(text[at..start], ids);
            at = start;
            if (token is not null)
            {
                ids.Add(token.Id);
                at += token.Content.Length;
            }
        }

        return ids;
    }

    /// <summary>The text of ids. Ids that the vocabulary does not hold stand for no text; broken UTF-8 becomes U+FFFD.</summary>
    /// <param name="ids">The ids.</param>
    /// <param name="skipSpecial">Whether special tokens are left out.</param>
    public string Decode(IEnumerable<int> ids, bool skipSpecial = true)
    {
        ArgumentNullException.ThrowIfNull(ids);
        var bytes = new List<byte>();
        foreach (int id in ids)
        {
            if (!(skipSpecial && IsSpecial(id)))
            {
                bytes.AddRange(BytesOf(id));
            }
        }

        return Encoding.UTF8.GetString(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(bytes));
    }

    /// <summary>A decoder for ids that come one at a time.</summary>
    /// <param name="skipSpecial">Whether special tokens are left out.</param>
    public StreamingDecoder CreateStreamingDecoder(bool skipSpecial = true) => new(this, skipSpecial);

    internal ReadOnlySpan<byte> BytesOf(int id) => bytes[id];

    /// <summary>A number of tokens that a text has at least, however it is split: from its length alone, so that it costs no tokenising.</summary>
    internal long LeastTokens(string text)
    {
        long mostBytes = (long)bytes.Longest * (file.NormalizesToNfc ? MostBytesAByteOfNfc : 1);
        return (Encoding.UTF8.GetByteCount(text) + mostBytes - 1) / mostBytes;
    }

    private void EncodeBetween(string text, List<int> ids)
    {
        if (text.Length == 0)
        {
            return;
        }

        string valid = WithoutLoneSurrogates(text);
        string normal = file.NormalizesToNfc ? Normalized(valid) : valid;
        ids.AddRange(bpe.EncodeToIds(normal, considerPreTokenization: true, considerNormalization: false));
    }

    // .NET refuses U+FFFE, though it is a character that nothing composes with: what lies between is normalized by itself.
    private static string Normalized(string text) =>
        text.Contains('\uFFFE', StringComparison.Ordinal)
            ? string.Join('\uFFFE', text.Split('\uFFFE').Select(part => part.Normalize(NormalizationForm.FormC)))
            : text.Normalize(NormalizationForm.FormC);

    // Normalize throws on them; a UTF-8 round trip puts U+FFFD in their place.
    private static string WithoutLoneSurrogates(string text)
    {
        for (int i = 0; i < text.Length; i++)
        {
            if (!char.IsSurrogate(text[i]))
            {
                continue;
            }

            if (i + 1 < text.Length && char.IsSurrogatePair(text[i], text[i + 1]))
            {
                i++;
                continue;
            }

            return Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text));
        }

        return text;
    }
}
