using CsCheck;
using GpuKit.Ilgpu.Models;
using GpuKit.Ilgpu.Tests.Oracle;
using GpuKit.Ilgpu.Tests.Support;

namespace GpuKit.Ilgpu.Tests.Properties;

/// <summary>What the writer writes, the reader and the slow validator read; what they would not read, it refuses.</summary>
public sealed class SafetensorsPropertyTests
{
    // Mostly short, at times longer than the reader allows, at times the reserved one.
    private static readonly Gen<string> Name = Gen.Frequency((20, Property.Text), (1, Gen.Int[500, 1_100].Select(n => new string('é', n))), (1, Gen.Const("__metadata__")));

    private static readonly Gen<(string Name, TensorType Type, long[] Shape)> Tensor =
        Gen.Select(Name, Gen.Enum<TensorType>(), Gen.Frequency((30, Gen.Long[0, 4].Array[0, 4]), (1, Gen.Long[0, 2].Array[9])));

    [Fact]
    public void WhatIsWrittenIsReadOrWasRefused()
    {
        using var folder = new TemporaryFolder();
        string path = folder.File("m");
        int read = 0;
        Property.Holds(Gen.Select(Tensor.Array[0, 6], Gen.Select(Property.Text, Property.Text).Array[0, 3]), 600, test =>
        {
            ((string Name, TensorType Type, long[] Shape)[] tensors, (string, string)[] texts) = test;
            var random = new Random(tensors.Length);
            (string Name, TensorType Type, long[] Shape, byte[] Bytes)[] contents = [.. tensors.Select(t =>
            {
                var bytes = new byte[new TensorDeclaration(t.Name, t.Type, t.Shape).ByteLength];
                random.NextBytes(bytes);
                return (t.Name, t.Type, t.Shape, bytes);
            })];
            var metadata = texts.DistinctBy(t => t.Item1).ToDictionary(t => t.Item1, t => t.Item2);
            try
            {
                SafetensorsWriter.Write(path, contents, metadata);
            }
            catch (ArgumentException)
            {
                Assert.True(
                    tensors.Any(t => t.Shape.Length > 8 || t.Name == "__metadata__" || t.Name.Length >= 170 || Property.WithoutLoneSurrogates(t.Name) != t.Name)
                    || tensors.DistinctBy(t => t.Name).Count() < tensors.Length
                    || metadata.Any(t => Property.WithoutLoneSurrogates(t.Key) != t.Key || Property.WithoutLoneSurrogates(t.Value) != t.Value));
                return;
            }

            byte[] file = File.ReadAllBytes(path);
            int header = (int)BitConverter.ToUInt64(file);
            var rules = SafetensorsRules.Read(file[8..(8 + header)], file.Length - 8 - header);
            using SafetensorsFile opened = SafetensorsFile.Open(path);
            Assert.Equal(metadata, opened.Metadata);
            Assert.Equal(tensors.Select(t => t.Name).Order(StringComparer.Ordinal), opened.Tensors.Keys.Order(StringComparer.Ordinal));
            Assert.Equal(opened.Tensors.Keys.Order(StringComparer.Ordinal), rules!.Tensors.Keys.Order(StringComparer.Ordinal));
            foreach ((string name, TensorType type, long[] shape, byte[] bytes) in contents)
            {
                TensorInfo tensor = opened.Tensors[name];
                Assert.Equal(type, tensor.Type);
                Assert.Equal(shape, tensor.Shape);
                Assert.Equal(bytes, opened.Bytes(tensor).ToArray());
            }

            read++;
        });
        Assert.InRange(read, 100, 600);
    }
}
