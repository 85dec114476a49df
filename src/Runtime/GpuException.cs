namespace GpuKit.Ilgpu;

/// <summary>What went wrong on a device or on the way to it.</summary>
public enum GpuFault
{
    /// <summary>No device of the wanted kind, or no driver.</summary>
    NoDevice,

    /// <summary>The device or this kind of device cannot do what was asked.</summary>
    NotSupported,

    /// <summary>Device memory is exhausted. The device stays usable.</summary>
    OutOfMemory,

    /// <summary>A kernel could not be compiled or loaded.</summary>
    Compilation,

    /// <summary>The driver refused a call. The device stays usable.</summary>
    Driver,

    /// <summary>
    /// A kernel faulted and the driver gave up the context: nothing on this device works any more in this process.
    /// The message names the last launches.
    /// </summary>
    DeviceLost,
}

/// <summary>A fault of the device, the driver or the way to them. Mistakes of the caller are <see cref="ArgumentException"/>s.</summary>
public sealed class GpuException : Exception
{
    /// <summary>Creates a fault with its kind and a message that names what failed.</summary>
    public GpuException(GpuFault fault, string message, Exception? inner = null)
        : base(message, inner) => Fault = fault;

    /// <summary>What went wrong.</summary>
    public GpuFault Fault { get; }
}
