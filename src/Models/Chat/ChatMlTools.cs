namespace GpuKit.Ilgpu.Models;

/// <summary>The way Qwen's templates offer tools and write calls.</summary>
internal static class ChatMlTools
{
    private const string OfferStart =
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        + "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";

    private const string OfferEnd =
        "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"
        + "<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";

    public static void RenderOffer(ChatText output, IReadOnlyList<string> tools)
    {
        output.Template(OfferStart);
        foreach (string tool in tools)
        {
            output.Template("\n").Content(PythonJson.Format(tool));
        }

        output.Template(OfferEnd);
    }

    public static void RenderCalls(ChatText output, IReadOnlyList<ChatToolCall> calls, bool firstStartsLine)
    {
        for (int i = 0; i < calls.Count; i++)
        {
            output.Template(i > 0 || firstStartsLine ? "\n" : "");
            output.Template("<tool_call>\n{\"name\": \"").Content(calls[i].Name);
            output.Template("\", \"arguments\": ").Content(calls[i].Arguments).Template("}\n</tool_call>");
        }
    }
}
