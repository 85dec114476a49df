namespace GpuKit.Ilgpu.Models;

/// <summary>The activations of one forward pass over at most <see cref="MaxTokens"/> tokens of one sequence, or one of each of several, allocated once.</summary>
internal sealed class Qwen3Workspace : IDisposable
{
    private readonly List<IDisposable> owned = [];

    public Qwen3Workspace(GpuDevice device, Qwen3MoeConfig config, int maxTokens, int sequences = 1)
    {
        MaxTokens = maxTokens;
        try
        {
            long tokens = maxTokens, heads = (long)config.QueryHeads * config.HeadDim;
            long pairs = tokens * config.ExpertsPerToken;
            long inner = Math.Max(pairs * config.MoeIntermediateSize, tokens * config.IntermediateSize);
            Residual = Own(device.Allocate<float>(tokens * config.HiddenSize));
            Normed = Own(device.Allocate<BFloat16>(tokens * config.HiddenSize));
            QueryKeyValue = Own(device.Allocate<BFloat16>(tokens * (config.QueryHeads + (2L * config.KeyValueHeads)) * config.HeadDim));
            Query = Own(device.Allocate<BFloat16>(tokens * heads));
            Attended = Own(device.Allocate<BFloat16>(tokens * heads));
            Projected = Own(device.Allocate<float>(Math.Max(pairs, tokens) * config.HiddenSize));
            RouterLogits = Own(device.Allocate<float>(tokens * config.Experts));
            Experts = Own(device.Allocate<int>(pairs));
            ExpertWeights = Own(device.Allocate<float>(pairs));
            Order = Own(device.Allocate<int>(pairs));
            Offsets = Own(device.Allocate<int>(config.Experts + 1L));
            GateUp = Own(device.Allocate<BFloat16>(2 * inner));
            Activated = Own(device.Allocate<BFloat16>(inner));
            RouterSums = Own(device.Allocate<long>(DecodeLinear.RouterLength(config.Experts)));
            RouterPosts = Own(device.Allocate<uint>(DecodeLinear.PostsLength(config.Experts)));
            RouterPosts.Fill(device.DefaultStream, 0);
            ExpertState = Own(device.Allocate<uint>(HopperExperts.StateLength));
            ExpertState.Fill(device.DefaultStream, 0);
            BatchRouterSums = Own(device.Allocate<long>((long)sequences * config.Experts));
            BatchRouterSums.Fill(device.DefaultStream, 0);
            RouterCounters = Own(device.Allocate<int>(RouterLinear.Counters));
            RouterCounters.Fill(device.DefaultStream, 0);
            device.DefaultStream.Synchronize();
            if (config.Experts is > 0 and <= ExpertMlpWorkspace.MostExperts && device.WarpSize == 32)
                ExpertWorkspace = Own(new ExpertMlpWorkspace(device, new ExpertMlpSize(Math.Min(maxTokens, ExpertMlp.MostTokens), config.ExpertsPerToken, config.Experts, config.HiddenSize, config.MoeIntermediateSize)));
            if (DecodeAttention.Exists(device, config.QueryHeads, config.KeyValueHeads, config.HeadDim))
                Attention = Own(new DecodeAttentionWorkspace(device, config.KeyValueHeads, config.HeadDim, sequences));
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public int MaxTokens { get; }

    /// <summary>[tokens, hidden] the residual stream.</summary>
    public DeviceBuffer<float> Residual { get; }

    /// <summary>[tokens, hidden] input of the next linear layer.</summary>
    public DeviceBuffer<BFloat16> Normed { get; }

    public DeviceBuffer<BFloat16> QueryKeyValue { get; }

    public DeviceBuffer<BFloat16> Query { get; }

    public DeviceBuffer<BFloat16> Attended { get; }

    /// <summary>[tokens or tokens · k, hidden] output of attention, of the experts or of the dense MLP.</summary>
    public DeviceBuffer<float> Projected { get; }

    public DeviceBuffer<float> RouterLogits { get; }

    public DeviceBuffer<int> Experts { get; }

    public DeviceBuffer<float> ExpertWeights { get; }

    public DeviceBuffer<int> Order { get; }

    public DeviceBuffer<int> Offsets { get; }

    public DeviceBuffer<BFloat16> GateUp { get; }

    public DeviceBuffer<BFloat16> Activated { get; }

    /// <summary>Fixed-point logits of one token, [experts], and the announcement of its choice.</summary>
    public DeviceBuffer<long> RouterSums { get; }

    /// <summary>Logits of one token whose state is normed already, zero but between two launches, and the announcement of its choice.</summary>
    public DeviceBuffer<uint> RouterPosts { get; }

    /// <summary>What blocks exchange where such a token's layer is one launch.</summary>
    public DeviceBuffer<uint> ExpertState { get; }

    /// <summary>[sequences, experts] the same of a batch: zero but between two launches.</summary>
    public DeviceBuffer<long> BatchRouterSums { get; }

    /// <summary>Of the router in one launch: zero but in it.</summary>
    public DeviceBuffer<int> RouterCounters { get; }

    /// <summary>For the experts of a few tokens; null where those do not run.</summary>
    public ExpertMlpWorkspace? ExpertWorkspace { get; }

    /// <summary>For attention of one token of each sequence in one launch; null where that does not run.</summary>
    public DecodeAttentionWorkspace? Attention { get; }

    public void Dispose() => owned.ForEach(o => o.Dispose());

    private T Own<T>(T resource)
        where T : IDisposable
    {
        owned.Add(resource);
        return resource;
    }
}
