using GpuKit.Ilgpu;

const int n = 256, k = 512;
using GpuDevice device = GpuDevice.Open();
float[] weights = [.. Enumerable.Range(0, n * k).Select(i => MathF.Sin(i))];
HostMatrix fp8 = Quantizer.Quantize(weights, n, k, WeightFormat.Fp8Block);
using QuantizedMatrix matrix = QuantizedMatrix.Upload(device, fp8);
BFloat16[] vector = [.. Enumerable.Range(0, k).Select(i => (BFloat16)MathF.Cos(i))];
using DeviceBuffer<BFloat16> x = device.Upload<BFloat16>(vector);
using DeviceBuffer<float> y = device.Allocate<float>(n);
Linear.Multiply(device.DefaultStream, matrix, x, y, m: 1);
float[] result = y.ToArray(device.DefaultStream);
Console.WriteLine($"{device.Name}, {matrix.Bytes} bytes of weights, y[1] = {result[1]}");
