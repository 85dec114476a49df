using GpuKit.Ilgpu;
using GpuKit.Ilgpu.Models;
using System.Diagnostics;
var sw = Stopwatch.StartNew();
using var device = GpuDevice.Open(DeviceKind.Auto);
Console.Error.WriteLine($"{device.Name}: {device.Choice} {sw.ElapsedMilliseconds} ms");
using var model = LanguageModel.Load(device, "models/tiny-moe-fp8");
Console.Error.WriteLine($"load {sw.ElapsedMilliseconds} ms");
using var gen = new TextGenerator(model);
for (int i = 0; i < 2; i++) {
var ids = model.Chat.EncodeChat(model.Tokenizer, [new ChatMessage("user", args[0])]);
await foreach (var t in gen.GenerateAsync(ids)) Console.Write(t);
Console.WriteLine();
Console.Error.WriteLine($"{sw.ElapsedMilliseconds} ms {gen.LastStatistics} prefill {gen.LastStatistics!.PrefillTokensPerSecond:F1} decode {gen.LastStatistics.DecodeTokensPerSecond:F1}");
}
