using GpuKit.Ilgpu;
using GpuKit.Ilgpu.Models;

string folder = args.Length > 0 ? args[0] : "models/tiny-moe-fp8";
using GpuDevice device = GpuDevice.Open();
using LanguageModel model = LanguageModel.Load(device, folder);
using var generator = new TextGenerator(model);
var conversation = new Conversation(model, generator);
foreach (string question in new[] { "Psalm 23:1", "next" })
{
    Console.WriteLine($"> {question}");
    await foreach (string text in conversation.AskAsync(question))
        Console.Write(text);
    Console.WriteLine();
}
