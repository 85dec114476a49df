using System.Globalization;
using System.Text;
using System.Text.Json;

namespace GpuKit.Ilgpu.Models;

/// <summary>
/// JSON spelled as Python's <c>json.dumps(…, ensure_ascii=False)</c> spells it, which is what the <c>tojson</c> of chat
/// templates gives and models were trained on: a space after every comma and colon, nothing escaped that need not be.
/// </summary>
internal static class PythonJson
{
    /// <summary>Re-spells a JSON object.</summary>
    /// <exception cref="ArgumentException">The text is not a JSON object.</exception>
    public static string Format(string json)
    {
        try
        {
            JsonElement root = JsonElement.Parse(json);
            if (root.ValueKind == JsonValueKind.Object)
            {
                var text = new StringBuilder(json.Length);
                Write(text, root);
                return text.ToString();
            }
        }
        catch (Exception e) when (ModelJson.IsMalformed(e))
        {
            throw new ArgumentException($"a tool is not valid JSON: {Excerpt.Of(e.Message)}", nameof(json), e);
        }

        throw new ArgumentException($"a tool is {Excerpt.Of(json)}; a JSON object is needed", nameof(json));
    }

    private static void Write(StringBuilder text, JsonElement value)
    {
        switch (value.ValueKind)
        {
            case JsonValueKind.Object:
                WriteList(text, '{', value.EnumerateObject(), '}', static (text, property) =>
                {
                    WriteString(text, property.Name);
                    text.Append(": ");
                    Write(text, property.Value);
                });
                break;
            case JsonValueKind.Array:
                WriteList(text, '[', value.EnumerateArray(), ']', Write);
                break;
            case JsonValueKind.String:
                WriteString(text, value.GetString()!);
                break;
            case JsonValueKind.Number:
                WriteNumber(text, value);
                break;
            default:
                text.Append(value.GetRawText());
                break;
        }
    }

    private static void WriteList<T>(StringBuilder text, char open, IEnumerable<T> items, char close, Action<StringBuilder, T> write)
    {
        text.Append(open);
        bool first = true;
        foreach (T item in items)
        {
            text.Append(first ? "" : ", ");
            write(text, item);
            first = false;
        }

        text.Append(close);
    }

    private static void WriteString(StringBuilder text, string value)
    {
        text.Append('"');
        foreach (char c in value)
        {
            _ = c switch
            {
                '"' => text.Append("\\\""),
                '\\' => text.Append(@"\\"),
                '\n' => text.Append(@"\n"),
                '\r' => text.Append(@"\r"),
                '\t' => text.Append(@"\t"),
                '\b' => text.Append(@"\b"),
                '\f' => text.Append(@"\f"),
                < ' ' => text.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:x4}"),
                _ => text.Append(c),
            };
        }

        text.Append('"');
    }

    // Whole numbers keep their digits; others become the shortest float. Python writes an exponent from 1e16 on, .NET from 1e17.
    private static void WriteNumber(StringBuilder text, JsonElement value)
    {
        string raw = value.GetRawText();
        if (raw.AsSpan().IndexOfAny(".eE") < 0)
        {
            text.Append(raw);
            return;
        }

        double number = value.GetDouble();
        string shortest = number.ToString(CultureInfo.InvariantCulture);
        bool whole = shortest.AsSpan().IndexOfAny(".EI") < 0;
        if (whole && Math.Abs(number) >= 1e16)
        {
            int first = shortest[0] == '-' ? 2 : 1;
            string rest = shortest[first..].TrimEnd('0');
            text.Append(shortest[..first]).Append(rest.Length > 0 ? "." : "").Append(rest).Append("e+16");
            return;
        }

        text.Append(shortest.Replace('E', 'e')).Append(whole ? ".0" : "");
    }
}
