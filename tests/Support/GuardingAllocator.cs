using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using GpuKit.Ilgpu.Runtime;
using GpuKit.Ilgpu.Runtime.Driver;
using ILGPU.Runtime;
using Xunit.Sdk;

namespace GpuKit.Ilgpu.Tests.Support;

/// <summary>
/// The memory of every device of the tests: each buffer lies between two guard bands, and bands and contents start as a NaN of every
/// float format, so that what a kernel reads unwritten or outside poisons its result. Writes into a band are found when the
/// buffer is disposed. Knows which test a buffer belongs to, and can run out of memory on demand.
/// </summary>
internal sealed unsafe class GuardingAllocator : DeviceAllocator
{
    /// <summary>Set to 0 for a tool that sees every access itself: a band would look like memory of the tensor to it, and a NaN like a value written.</summary>
    public const string Variable = "GPUKIT_TEST_GUARDS";

    private const int GuardBytes = 4096;
    private const byte Pattern = 0xFF;

    // Blocks start on at least so many bytes, and elements stay as aligned as they would be without a band.
    private const int Alignment = 256;

    /// <summary>Whether buffers are guarded and start as NaN.</summary>
    public static bool IsOn { get; } = Environment.GetEnvironmentVariable(Variable) != "0";

    private static readonly AsyncLocal<bool> SharedByTests = new();

    private readonly ConcurrentDictionary<DeviceMemory, ITest?> owners = new(ReferenceEqualityComparer.Instance);
    private readonly Lock gate = new();
    private long allocationsLeft = long.MaxValue;

    /// <summary>Allocations of device and pinned memory so far.</summary>
    public long Allocations { get; private set; }

    /// <summary>Puts guard bands around all buffers of a device, which has none yet.</summary>
    public static GpuDevice Guard(GpuDevice device)
    {
        device.Allocator = new GuardingAllocator();
        return device;
    }

    /// <summary>The allocator of a device that tests opened.</summary>
    public static GuardingAllocator Of(GpuDevice device) => (GuardingAllocator)device.Allocator;

    /// <summary>Makes what several tests use: buffers allocated inside belong to no test.</summary>
    public static T Shared<T>(Func<T> make)
    {
        SharedByTests.Value = true;
        try
        {
            return make();
        }
        finally
        {
            SharedByTests.Value = false;
        }
    }

    /// <summary>Lets so many more allocations succeed; null lets all.</summary>
    public void FailAfter(int? allocations) => allocationsLeft = allocations ?? long.MaxValue;

    /// <summary>The fault of a call during which so many allocations succeed and no more.</summary>
    public GpuException Refusing(int allocations, Action call)
    {
        FailAfter(allocations);
        try
        {
            return Assert.Throws<GpuException>(call);
        }
        finally
        {
            FailAfter(null);
        }
    }

    public override DeviceMemory Allocate(GpuDevice device, in BufferSize size)
    {
        Count();
        DeviceMemory memory = IsOn ? Guarded(device, size) : base.Allocate(device, size);
        owners[memory] = SharedByTests.Value || size.IsScratch ? null : TestContext.Current.Test;
        return memory;
    }

    private static DeviceMemory Guarded(GpuDevice device, in BufferSize size)
    {
        // Whole elements, for a view starts at one.
        int unit = Alignment * size.ElementBytes, front = (GuardBytes + unit - 1) / unit * unit;
        MemoryBuffer block = device.Accelerator.AllocateRaw(front + size.AllocatedBytes + GuardBytes, 1);
        Fill(device, block);
        return new DeviceMemory(block, front / size.ElementBytes, size);
    }

    public override void Free(GpuDevice device, DeviceMemory memory)
    {
        // Nobody looks at it any more, and who does has finished.
        lock (gate)
            owners.TryRemove(memory, out _);
        string? damage = device.IsLost || !IsOn ? null : Damage(device, memory);
        base.Free(device, memory);
        if (damage is not null)
            throw new XunitException(damage);
    }

    public override void Pinning(nuint bytes) => Count();

    /// <summary>Descriptions of the buffers that tests, chosen by their id, allocated and did not dispose.</summary>
    public IEnumerable<string> Held(Predicate<string> test) =>
        owners.Where(o => o.Value is { } owner && test(owner.UniqueID)).Select(o => $"{Describe(o.Key)} of {o.Value!.TestDisplayName}");

    /// <summary>What was written outside the scratch memory of streams and graphs, which outlives tests.</summary>
    public IReadOnlyList<string> DamagedScratch(GpuDevice device)
    {
        lock (gate)
            return [.. owners.Keys.Where(memory => IsOn && !device.IsLost && memory.Size.IsScratch).Select(memory => Damage(device, memory)).OfType<string>()];
    }

    private void Count()
    {
        Allocations++;
        if (allocationsLeft != long.MaxValue && --allocationsLeft < 0)
            throw new OutOfMemoryException("As the test asked for.");
    }

    private static void Fill(GpuDevice device, MemoryBuffer block)
    {
        if (!device.IsCuda)
        {
            NativeMemory.Fill((void*)block.NativePtr, (nuint)block.LengthInBytes, Pattern);
            return;
        }
        device.Check(CudaDriver.cuMemsetD8Async(block.NativePtr, Pattern, (nuint)block.LengthInBytes, device.DefaultStream.Handle), "filling a test's buffer");
        device.DefaultStream.Synchronize();
    }

    // The end of the elements is where the band begins, also within a 16-byte word.
    private static string? Damage(GpuDevice device, DeviceMemory memory)
    {
        long front = memory.FirstElement * memory.Size.ElementBytes, end = front + memory.Size.Bytes;
        byte[] before = Read(device, memory.Block, 0, front), after = Read(device, memory.Block, end, memory.Block.LengthInBytes - end);
        int first = before.AsSpan().IndexOfAnyExcept(Pattern);
        long? damaged = first >= 0 ? first - front : null;
        if (damaged is null && (first = after.AsSpan().IndexOfAnyExcept(Pattern)) >= 0)
            damaged = memory.Size.Bytes + first;
        return damaged is { } at
            ? $"A kernel wrote outside its tensor: byte {at} of {Describe(memory)} is 0x{(at < 0 ? before : after)[first]:X2}; only bytes 0 to {memory.Size.Bytes - 1} are its own."
            : null;
    }

    private static byte[] Read(GpuDevice device, MemoryBuffer block, long start, long count)
    {
        var bytes = new byte[count];
        fixed (byte* host = bytes)
        {
            if (!device.IsCuda)
            {
                Buffer.MemoryCopy((byte*)block.NativePtr + start, host, count, count);
                return bytes;
            }
            device.Bind();
            device.Check(CudaDriver.cuMemcpyDtoHAsync_v2(host, block.NativePtr + (nint)start, (nuint)count, device.DefaultStream.Handle), "reading a guard band");
            device.DefaultStream.Synchronize();
        }
        return bytes;
    }

    private static string Describe(DeviceMemory memory) => $"a DeviceBuffer<{memory.Size.Element.Name}> of {memory.Size.Length} elements ({memory.Size.Bytes} bytes)";
}
