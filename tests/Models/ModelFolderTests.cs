using System.Diagnostics.Tracing;
using System.Reflection;
using System.Reflection.Metadata;
using System.Reflection.PortableExecutable;
using System.Text.RegularExpressions;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Models;

/// <summary>Loading stays inside the folder: no link out of it, no expression or code of its files, no network.</summary>
[Collection(nameof(Alone))]
public sealed class ModelFolderTests
{
    public static TheoryData<string> Files => ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors", "model.safetensors.index.json"];

    // What could open a connection, start a program, or turn text into code.
    private static readonly string[] Forbidden =
    [
        "System.Net.", "System.Diagnostics.Process", "System.Reflection.Emit", "System.Reflection.Assembly.Load", "System.Runtime.Loader", "System.Linq.Expressions",
        "System.Runtime.Serialization", "System.Xml", "Microsoft.CodeAnalysis", "System.Activator",
    ];

    [Theory]
    [MemberData(nameof(Files))]
    public void A_link_out_of_the_folder_is_refused_whatever_file_it_is(string name)
    {
        Assert.SkipWhen(OperatingSystem.IsWindows(), "links need a privilege there");
        using var outside = new TemporaryFolder();
        using var folder = new TemporaryFolder();
        outside.Write(name, "{}");
        File.CreateSymbolicLink(folder.File(name), outside.File(name));
        Action read = name switch
        {
            "config.json" => () => Qwen3MoeConfig.Load(folder.Path),
            "generation_config.json" => () => GenerationConfig.Load(folder.Path),
            "tokenizer.json" => () => Tokenizer.Load(folder.Path),
            "tokenizer_config.json" or "chat_template.jinja" => () => ChatTemplate.Load(folder.Path),
            _ => () => Checkpoint.Open(folder.Path),
        };
        var refused = Assert.Throws<ModelFileException>(read);
        Assert.Equal(name, refused.FileName);
        Assert.Contains("link that leads out", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void The_room_of_models_refers_to_nothing_that_could_run_or_connect()
    {
        using FileStream file = File.OpenRead(typeof(Qwen3MoeConfig).Assembly.Location);
        using var image = new PEReader(file);
        MetadataReader metadata = image.GetMetadataReader();
        string[] types = [.. metadata.TypeReferences.Select(metadata.GetTypeReference).Select(t => $"{metadata.GetString(t.Namespace)}.{metadata.GetString(t.Name)}")];
        Assert.Contains("System.Text.Json.JsonElement", types);
        Assert.DoesNotContain(types, t => Forbidden.Any(f => t.StartsWith(f, StringComparison.Ordinal)));
        Assert.DoesNotContain(Members(metadata, typeof(Assembly)), m => m.StartsWith("Load", StringComparison.Ordinal));

        // Expressions are those that the compiler generated from this library's own text: none is made, or named by a caller, at run time.
        string[] regex = Members(metadata, typeof(Regex));
        Assert.Contains("IsMatch", regex);
        Assert.DoesNotContain(regex, m => m is "Replace" or "Split" or "CompileToAssembly");
        Assert.Equal([0], ConstructorParameters(metadata, typeof(Regex)));
    }

    [Fact]
    public void Loading_a_model_opens_no_connection()
    {
        using var network = new NetworkEvents();
        using GpuDevice device = GpuDevice.Open(DeviceKind.Cpu);
        using var model = LanguageModel.Load(device, RepositoryFolder.TinyModel, cancellation: TestContext.Current.CancellationToken);
        Assert.NotEmpty(model.Chat.Render([new ChatMessage(ChatRole.User, "x")]));
        Assert.NotEmpty(model.Tokenizer.Encode("x"));
        Assert.Empty(network.Seen);
    }

    private static string[] Members(MetadataReader metadata, Type type) => [.. References(metadata, type).Select(m => metadata.GetString(m.Name))];

    // How many parameters the constructors take that are called: the second number of their signatures.
    private static int[] ConstructorParameters(MetadataReader metadata, Type type) =>
        [.. References(metadata, type).Where(m => metadata.GetString(m.Name) == ".ctor").Select(m => (int)metadata.GetBlobBytes(m.Signature)[1]).Distinct()];

    private static IEnumerable<MemberReference> References(MetadataReader metadata, Type type) => metadata.MemberReferences
        .Select(metadata.GetMemberReference)
        .Where(m => m.Parent.Kind == HandleKind.TypeReference && metadata.GetTypeReference((TypeReferenceHandle)m.Parent) is var t
            && metadata.GetString(t.Name) == type.Name && metadata.GetString(t.Namespace) == type.Namespace);

    // What the runtime itself reports of sockets, name look-ups and requests.
    private sealed class NetworkEvents : EventListener
    {
        public List<string> Seen { get; } = [];

        protected override void OnEventSourceCreated(EventSource eventSource)
        {
            if (eventSource.Name is "System.Net.Sockets" or "System.Net.NameResolution" or "System.Net.Http")
                EnableEvents(eventSource, EventLevel.Informational);
        }

        protected override void OnEventWritten(EventWrittenEventArgs eventData) => Seen.Add($"{eventData.EventSource.Name}: {eventData.EventName}");
    }
}
