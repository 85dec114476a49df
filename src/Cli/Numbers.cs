using System.CommandLine;
using System.Globalization;
using System.Numerics;

namespace GpuKit.Ilgpu.Cli;

/// <summary>Options whose values are numbers, read alike under every culture.</summary>
internal static class Numbers
{
    /// <summary>A whole number of at least <paramref name="min"/>.</summary>
    public static Option<T?> Whole<T>(string name, T min, string description)
        where T : struct, IBinaryInteger<T> =>
        Create<T>(name, description, NumberStyles.AllowLeadingSign, v => v >= min, $"a whole number of at least {min}");

    /// <summary>A finite number.</summary>
    public static Option<T?> Real<T>(string name, string description)
        where T : struct, IFloatingPoint<T> =>
        Create<T>(name, description, NumberStyles.Float, T.IsFinite, "a number");

    private static Option<T?> Create<T>(string name, string description, NumberStyles style, Func<T, bool> valid, string needed)
        where T : struct, INumber<T> => new(name)
        {
            Description = description,
            Arity = ArgumentArity.ExactlyOne,
            HelpName = "N",
            CustomParser = result =>
            {
                string text = result.Tokens[0].Value;
                if (T.TryParse(text, style, CultureInfo.InvariantCulture, out T value) && valid(value))
                    return value;
                result.AddError($"{name} must be {needed}; '{text}' is not.");
                return null;
            },
        };
}
