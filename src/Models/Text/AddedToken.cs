namespace GpuKit.Ilgpu.Models;

/// <summary>A token that is found in the text as it stands, before anything else is done to it.</summary>
/// <param name="Content">Its text.</param>
/// <param name="Id">Its id.</param>
/// <param name="Special">Whether it controls the model (<c>&lt;|im_end|&gt;</c>) and so must not come from a user's text.</param>
internal sealed record AddedToken(string Content, int Id, bool Special);
