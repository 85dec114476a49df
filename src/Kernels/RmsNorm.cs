using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// RMSNorm: y[r, i] = bf16(x[r, i] · rsqrt(mean over i of x[r, i]² + eps) · gain[i]) in float32, optionally after x += addend.
/// </summary>
/// <remarks>
/// One block a row (grid stride), four neighbours a thread and step. The first two steps, all of a row of a few thousand numbers, stay in
/// registers and are requested together; beyond them a thread reads again what it has read or written itself. Whether words or elements
/// are loaded changes no bit.
/// </remarks>
internal static class RmsNorm
{
    internal struct Args
    {
        /// <summary>[Rows, Width] float32: the residual stream.</summary>
        public ArrayView<float> X;

        /// <summary>[Rows, Width] float32, added to X in place.</summary>
        public ArrayView<float> Addend;

        /// <summary>[Width] BF16.</summary>
        public ArrayView<ushort> Gain;

        /// <summary>[Rows, Width] BF16.</summary>
        public ArrayView<ushort> Output;

        public int Rows;
        public int Width;
        public float Epsilon;

        /// <summary>Whether four neighbours may be loaded and stored at once; else 0.</summary>
        public int HasWords;
    }

    public static void Run(Args a)
    {
        ArrayView<float> scratch = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        GridDependency.Release();
        GridDependency.Wait();
        for (long row = Grid.IdxX; row < a.Rows; row += Grid.DimX)
            Normalize(a, row * a.Width, scratch);
    }

    public static void RunAdd(Args a)
    {
        ArrayView<float> scratch = SharedMemory.Allocate<float>(BlockOps.MaxWarps);
        GridDependency.Release();
        GridDependency.Wait();
        for (long row = Grid.IdxX; row < a.Rows; row += Grid.DimX)
        {
            // A thread adds what it reads afterwards.
            long start = row * a.Width;
            for (int i = Group.IdxX * 4; i < a.Width; i += Group.DimX * 4)
                Store(a, start, i, Sum(Load(a, a.X, start, i), Load(a, a.Addend, start, i)));
            Normalize(a, start, scratch);
        }
    }

    /// <summary>Norms the row that starts at an element, by the whole block; returns its factor.</summary>
    public static float Normalize(Args a, long start, ArrayView<float> scratch)
    {
        int step = Group.DimX * 4, first = Group.IdxX * 4;
        return Normalize(a, start, scratch, Load(a, a.X, start, first), Load(a, a.X, start, first + step));
    }

    /// <summary>The same where a thread has the first two steps of the row already.</summary>
    public static float Normalize(Args a, long start, ArrayView<float> scratch, F4 x0, F4 x1)
    {
        int step = Group.DimX * 4, first = Group.IdxX * 4;
        float squares = AddSquares(x1, AddSquares(x0, 0));
        for (int i = first + (2 * step); i < a.Width; i += step)
            squares = AddSquares(Load(a, a.X, start, i), squares);
        float scale = Fast.Rsqrt((BlockOps.Sum(squares, scratch) / a.Width) + a.Epsilon);
        Put(a, start, first, x0, scale);
        Put(a, start, first + step, x1, scale);
        for (int i = first + (2 * step); i < a.Width; i += step)
            Put(a, start, i, Load(a, a.X, start, i), scale);
        return scale;
    }

    private static float AddSquares(F4 x, float sum) => Fast.Fma(x.W, x.W, Fast.Fma(x.Z, x.Z, Fast.Fma(x.Y, x.Y, Fast.Fma(x.X, x.X, sum))));

    private static F4 Sum(F4 a, F4 b)
    {
        a.X = Fast.Add(a.X, b.X);
        a.Y = Fast.Add(a.Y, b.Y);
        a.Z = Fast.Add(a.Z, b.Z);
        a.W = Fast.Add(a.W, b.W);
        return a;
    }

    // Zeros past the end.
    private static F4 Load(Args a, ArrayView<float> x, long start, int i)
    {
        F4 loaded = default;
        if (a.HasWords == 0)
        {
            loaded.X = i < a.Width ? x[start + i] : 0;
            loaded.Y = i + 1 < a.Width ? x[start + i + 1] : 0;
            loaded.Z = i + 2 < a.Width ? x[start + i + 2] : 0;
            loaded.W = i + 3 < a.Width ? x[start + i + 3] : 0;
            return loaded;
        }
        if (i >= a.Width)
            return loaded;
        U4 bits = Mem.LoadGlobal(ref x.Cast<uint>()[start + i]);
        loaded.X = Interop.IntAsFloat(bits.X);
        loaded.Y = Interop.IntAsFloat(bits.Y);
        loaded.Z = Interop.IntAsFloat(bits.Z);
        loaded.W = Interop.IntAsFloat(bits.W);
        return loaded;
    }

    /// <summary>Four neighbours of the residual stream, nothing past the row's end.</summary>
    public static void Store(Args a, long start, int i, F4 x)
    {
        if (i >= a.Width)
            return;
        if (a.HasWords != 0)
        {
            U4 bits = default;
            bits.X = Interop.FloatAsInt(x.X);
            bits.Y = Interop.FloatAsInt(x.Y);
            bits.Z = Interop.FloatAsInt(x.Z);
            bits.W = Interop.FloatAsInt(x.W);
            Mem.StoreGlobal(ref a.X.Cast<uint>()[start + i], bits);
            return;
        }
        a.X[start + i] = x.X;
        if (i + 1 < a.Width)
            a.X[start + i + 1] = x.Y;
        if (i + 2 < a.Width)
            a.X[start + i + 2] = x.Z;
        if (i + 3 < a.Width)
            a.X[start + i + 3] = x.W;
    }

    private static void Put(Args a, long start, int i, F4 x, float scale)
    {
        if (i >= a.Width)
            return;
        if (a.HasWords != 0)
        {
            U2 gain = Mem.LoadGlobal2(ref a.Gain.Cast<uint>()[i >> 1]), y = default;
            y.X = Bf16.Pack(x.X * scale * Bf16.Low(gain.X), x.Y * scale * Bf16.High(gain.X));
            y.Y = Bf16.Pack(x.Z * scale * Bf16.Low(gain.Y), x.W * scale * Bf16.High(gain.Y));
            Mem.StoreGlobal2(ref a.Output.Cast<uint>()[(start + i) >> 1], y);
            return;
        }
        PutOne(a, start, i, x.X * scale);
        PutOne(a, start, i + 1, x.Y * scale);
        PutOne(a, start, i + 2, x.Z * scale);
        PutOne(a, start, i + 3, x.W * scale);
    }

    private static void PutOne(Args a, long start, int i, float x)
    {
        if (i < a.Width)
            a.Output[start + i] = Bf16.FromFloat(x * Bf16.ToFloat(a.Gain[i]));
    }
}
