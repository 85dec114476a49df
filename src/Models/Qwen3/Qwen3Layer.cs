namespace GpuKit.Ilgpu.Models;

/// <summary>The weights of one decoder layer.</summary>
internal sealed class Qwen3Layer : IDisposable
{
    private readonly List<IDisposable> owned = [];

    private Qwen3Layer()
    {
    }

    public DeviceBuffer<BFloat16> InputNorm { get; private set; } = null!;

    public DeviceBuffer<BFloat16> PostAttentionNorm { get; private set; } = null!;

    public DeviceBuffer<BFloat16> QueryNorm { get; private set; } = null!;

    public DeviceBuffer<BFloat16> KeyNorm { get; private set; } = null!;

    /// <summary>[queries; keys; values] × hidden.</summary>
    public FusedLinear QueryKeyValue { get; private set; } = null!;

    public FusedLinear Output { get; private set; } = null!;

    /// <summary>The router, or null in a dense layer.</summary>
    public QuantizedMatrix? Router { get; private set; }

    /// <summary>[gate; up] × hidden, of each expert or of the dense MLP.</summary>
    public FusedLinear GateUp { get; private set; } = null!;

    /// <summary>hidden × intermediate, of each expert or of the dense MLP.</summary>
    public FusedLinear Down { get; private set; } = null!;

    /// <summary>The experts' matrices as one stack each, where they are stored so.</summary>
    public ExpertStack? Experts => Router is not null && GateUp.Single is { } gateUp && Down.Single is { } down ? new ExpertStack(gateUp, down) : null;

    /// <summary>Loads a layer; nothing stays allocated when that fails.</summary>
    public static Qwen3Layer Load(IWeightSource loader, Qwen3MoeConfig config, int index)
    {
        var layer = new Qwen3Layer();
        try
        {
            layer.LoadAttention(loader, config, $"model.layers.{index}.");
            if (config.IsSparse(index))
                layer.LoadExperts(loader, config, $"model.layers.{index}.mlp.");
            else
                layer.LoadDense(loader, config, $"model.layers.{index}.mlp.");
            return layer;
        }
        catch
        {
            loader.Abandon();
            layer.Dispose();
            throw;
        }
    }

    public void Dispose() => owned.ForEach(o => o.Dispose());

    private void LoadAttention(IWeightSource loader, Qwen3MoeConfig config, string layer)
    {
        string attention = layer + "self_attn.";
        int queries = config.QueryHeads * config.HeadDim, keys = config.KeyValueHeads * config.HeadDim;
        InputNorm = Own(loader.Gain(layer + "input_layernorm.weight", config.HiddenSize));
        PostAttentionNorm = Own(loader.Gain(layer + "post_attention_layernorm.weight", config.HiddenSize));
        QueryNorm = Own(loader.Gain(attention + "q_norm.weight", config.HeadDim));
        KeyNorm = Own(loader.Gain(attention + "k_norm.weight", config.HeadDim));
        QueryKeyValue = Own(loader.Fused(config.HiddenSize, (attention + "q_proj.weight", queries), (attention + "k_proj.weight", keys), (attention + "v_proj.weight", keys)));
        Output = Own(loader.Fused(queries, (attention + "o_proj.weight", config.HiddenSize)));
    }

    private void LoadExperts(IWeightSource loader, Qwen3MoeConfig config, string mlp)
    {
        int width = config.MoeIntermediateSize;
        Router = Own(loader.Matrix(mlp + "gate.weight", config.Experts, config.HiddenSize));
        GateUp = Own(loader.Experts(config.HiddenSize, e => [($"{mlp}experts.{e}.gate_proj.weight", width), ($"{mlp}experts.{e}.up_proj.weight", width)]));
        Down = Own(loader.Experts(width, e => [($"{mlp}experts.{e}.down_proj.weight", config.HiddenSize)]));
    }

    private void LoadDense(IWeightSource loader, Qwen3MoeConfig config, string mlp)
    {
        int width = config.IntermediateSize;
        GateUp = Own(loader.Fused(config.HiddenSize, (mlp + "gate_proj.weight", width), (mlp + "up_proj.weight", width)));
        Down = Own(loader.Fused(width, (mlp + "down_proj.weight", config.HiddenSize)));
    }

    private T Own<T>(T resource)
        where T : IDisposable
    {
        owned.Add(resource);
        return resource;
    }
}
