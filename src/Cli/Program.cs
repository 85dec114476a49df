return await GpuKit.Ilgpu.Cli.Application.RunAsync(args).ConfigureAwait(false);
