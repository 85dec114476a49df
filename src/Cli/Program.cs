Console.WriteLine("gpukit");
