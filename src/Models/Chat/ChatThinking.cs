namespace GpuKit.Ilgpu.Models;

/// <summary>What a template of the ChatML family writes about thinking when it opens an answer.</summary>
internal enum ChatThinking
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>An empty thought when the caller switches thinking off (Qwen3 hybrid).</summary>
    Switchable,

    /// <summary>The opening of a thought, always (Qwen3 thinking-only).</summary>
    Always,
}
