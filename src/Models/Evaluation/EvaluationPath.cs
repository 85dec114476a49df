namespace GpuKit.Ilgpu.Models;

/// <summary>What computes the logits that are compared with a reference's.</summary>
public enum EvaluationPath
{
    /// <summary>A prompt as a whole, in parts; routers are compared, too.</summary>
    Prefill,

    /// <summary>Token by token, each a decode step: on a card the recorded one.</summary>
    Decode,

    /// <summary>The same by the steps of a batch in which prompts run side by side, each until its end.</summary>
    Batch,
}
