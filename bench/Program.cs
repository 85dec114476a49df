using GpuKit.Ilgpu;
using GpuKit.Ilgpu.Runtime.Ptx;
foreach (var t in PtxTarget.All) {
  var dir = Path.Combine(args[0], t.ToString()); Directory.CreateDirectory(dir);
  int i=0, local=0, dbl=0; var sw=System.Diagnostics.Stopwatch.StartNew();
  foreach (var (k, text) in PtxCompiler.CompileAll(KernelCatalog.For(t), t)) { File.WriteAllText(Path.Combine(dir, $"{i++:000}.ptx"), "// "+k.Name+"\n"+text); if (PtxText.UsesLocalMemory(text)) {local++; if(local<5)Console.WriteLine("LOCAL "+k.Name);} if (PtxText.UsesDouble(text)) {dbl++;if(dbl<5)Console.WriteLine("F64 "+k.Name);} }
  Console.WriteLine($"{t}: {i} kernels, {local} local, {dbl} double, {sw.ElapsedMilliseconds} ms");
}
