namespace GpuKit.Ilgpu.Models;

/// <summary>The roles that chat templates know, as they are spelled in a rendered conversation.</summary>
public static class ChatRole
{
    /// <summary>Instructions that stand above the conversation.</summary>
    public const string System = "system";

    /// <summary>The one who asks.</summary>
    public const string User = "user";

    /// <summary>The model.</summary>
    public const string Assistant = "assistant";

    /// <summary>What a tool answered to a call of the assistant.</summary>
    public const string Tool = "tool";
}
