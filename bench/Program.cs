using GpuKit.Ilgpu;
using GpuKit.Ilgpu.Bench;
using GpuKit.Ilgpu.Models;

const string Usage = """
    usage: GpuKit.Ilgpu.Bench BENCH [options]

    host      cost of the host side: operator call, plan, kernel look-up, tokenizer, opening a checkpoint
    gemv      products of few rows: formats × shapes, beside cuBLAS and the card's read bandwidth; needs a card, no model
    gemm      products of many rows: formats × shapes × rows, beside cuBLAS; needs a card, no model
    moe       a Mixture-of-Experts layer by itself: router, choice, experts, weighted sum; each result is checked
    decode    tokens a second of a model, greedy
    prefill   time to the first token of prompts of random tokens, batch 1, greedy
    load      a folder's weights onto the device: GB/s, seconds, and the most memory that the process had resident
    soak      a model in use for minutes: exit code 1 when device bytes or the managed heap grow
    report    docs/results as tables and a chart in the documents; no card needed

    --device auto|cuda|cpu   default auto
    --ordinal N              which card, default 0
    --model DIR              default: models/tiny-moe-fp8 of the repository; decode, prefill and moe also take
                             synth:NAME[,layers=N][,seed=S], random weights in the shape of a published model ({SHAPES})
    --context C[,C…]         decode: positions already in the cache (random keys and values), in place of a prompt
    --batch B[,B…]           decode: so many sequences together (1 to 16), with different prompts; default one by itself
    --prompts T[,T…]         prefill: tokens of the prompts, default 32,512,2048,8192
    --kv-cache bf16|fp8      decode, prefill: how keys and values are stored, default bf16
    --kernels                decode: each kernel of a step by itself, with its share of the card's read bandwidth;
                             prefill: each kernel's time, added up over the prompt
    --long                   decode: --tokens in one unbroken run; exit code 1 when memory grows or the last tokens take longer than
                             tokens at their positions in a sequence that begins there
    --tokens N               decode: tokens a run, default 256
    --formats F[,F…]         gemv, gemm: weights, or weights+activations (gemm: Fp8Block+Fp8Group128); default {FORMATS}
    --shapes KxN[,KxN…]      gemv, gemm: columns and rows of the weights, default twelve (gemm: four) of language models
    --rows M[,M…]            gemv, gemm: rows of x, default 1,8,16 (gemm: nine from 16 to 8192); moe: tokens, default 1,8,64,2048
    --tiles plan|portable|all|split  gemm: what the plan chooses, would choose on a card without kernels of its own, every one, or every way to split K of
                             17 to 256 rows; default plan
    --parts P[,P…]           gemm: with --tiles all or split, parts of K; default the plan's. A tile that cannot have so many is left out, and said
    --runs N                 decode, prefill: runs after a warm-up, default 5; load: runs after the first
    --minutes N              soak: how long, default 9
    --check                  report: write nothing, exit 1 when a document is not up to date
    --write                  append the results to docs/results
    --out DIR                write them there instead
    """;

if (args.Length == 0 || args[0] is "list" or "-h" or "--help")
{
    Console.WriteLine(Usage.Replace("{FORMATS}", string.Join(",", GemvProduct.All.Select(p => p.Name)), StringComparison.Ordinal)
        .Replace("{SHAPES}", string.Join(", ", KnownConfigs.Names), StringComparison.Ordinal));
    return 0;
}
try
{
    BenchOptions options = BenchOptions.Parse(args[1..]);
    if (args[0] == "report")
        return Report.Run(BenchOptions.RepositoryRoot(), options.Check);
    int wrong = 0;
    IReadOnlyList<ResultRecord> results = args[0] switch
    {
        "host" => HostBench.Run(options),
        "gemv" => GemvBench.Run(options, out wrong),
        "gemm" => GemmBench.Run(options, out wrong),
        "moe" => MoeBench.Run(options, out wrong),
        "decode" => DecodeBench.Run(options, out wrong),
        "prefill" => PrefillBench.Run(options),
        "load" => LoadBench.Run(options),
        "soak" => SoakBench.Run(options, out wrong),
        _ => throw new ArgumentException($"'{args[0]}' is no benchmark."),
    };
    foreach (ResultRecord result in results)
        Console.WriteLine(result.ToJson());
    if (options.ResultFolder is { } folder && results.Count > 0)
        Console.Error.WriteLine("written to " + string.Join(", ", ResultRecord.Append(folder, results)));
    return results.Count > 0 && wrong == 0 ? 0 : 1;
}
catch (Exception e) when (e is ArgumentException or GpuException or IOException or GpuKit.Ilgpu.Models.ModelFileException)
{
    Console.Error.WriteLine(e.Message);
    return e is ArgumentException ? 2 : 1;
}
