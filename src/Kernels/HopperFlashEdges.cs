using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;

namespace GpuKit.Ilgpu.Kernels;

/// <summary>
/// Values that not all rows of a block of <see cref="HopperFlash"/> see. A product with a weight of zero would hand what is infinite or NaN among them to rows that do not
/// see it: so it becomes zero before the tile is multiplied, and is added to the rows that do see it when they are stored. Positions that no row sees become zeros.
/// </summary>
internal static class HopperFlashEdges
{
    /// <summary>Warps that clean.</summary>
    public const int Warps = 3;

    private const int UnitBytes = 16, UnitShift = 4, Units = 1 << UnitShift;

    /// <summary>Cleans the tiles that not all rows see, each when it has landed.</summary>
    public static void Clean(in HopperFlashBlock block, uint shared)
    {
        for (int tile = block.FirstEdge; tile < block.Tiles; tile++)
        {
            int start = tile << HopperFlash.TileShift, first = IntrinsicMath.Max(block.Span.AllSee - start, 0);
            uint values = shared + HopperFlash.ValuePlace(tile);
            Mbarrier.Wait(shared + HopperFlash.EdgesFull(tile), HopperFlash.Parity(tile - block.FirstEdge));
            for (int i = Group.IdxX - (Warpgroup.Threads - (32 * Warps)) + (first * Units); i < HopperFlash.TilePositions * Units; i += 32 * Warps)
            {
                int row = i >> UnitShift;
                uint at = values + Place((uint)row, (uint)(i & (Units - 1)), HopperFlash.SlabBytes);
                U4 unit = default;
                if (start + row < block.Span.End)
                {
                    unit = SharedWindow.Load(at);
                    if (!FlashInfinities.IsAny(unit))
                        continue;
                    SharedWindow.Store(shared + HopperFlash.FoundPlace(), new U4 { X = 1 });
                    unit = FlashInfinities.Without(unit);
                }
                SharedWindow.Store(at, unit);
            }
            Tma.FenceShared();
            WarpOps.Barrier(); // the warp's lanes have cleaned
            if (Warp.LaneIdx == 0)
                Mbarrier.Arrive(shared + HopperFlash.EdgesClean(tile));
        }
    }

    /// <summary>Waits until a tile's values may be multiplied.</summary>
    public static void Await(in HopperFlashBlock block, int tile, uint shared)
    {
        if (tile < block.FirstEdge)
        {
            Mbarrier.Wait(shared + HopperFlash.ValuesFull(tile), HopperFlash.Parity(tile));
            return;
        }
        Mbarrier.Wait(shared + HopperFlash.EdgesFull(tile), HopperFlash.Parity(tile - block.FirstEdge));
        Mbarrier.Wait(shared + HopperFlash.EdgesClean(tile), HopperFlash.Parity(tile - block.FirstEdge));
    }

    /// <summary>Where a 16-byte unit of a row of 128 columns lies in two slabs of 64.</summary>
    public static uint Place(uint row, uint unit, int slabBytes) => ((unit >> 3) * (uint)slabBytes) + (row * HopperFlash.RowBytes) + (((unit ^ row) & 7) << 4);

    /// <summary>Eight columns of a row's output with what was cleaned away and the row sees.</summary>
    public static U4 Restored(HopperFlashArgs a, in HopperFlashBlock block, int row, int unit, U4 output)
    {
        int length = block.Tokens.Length(row);
        for (int position = block.Span.AllSee; position < length; position++)
        {
            U4 value = Mem.LoadGlobalFrom(a.ValueAddress + (((((long)block.KvHead * a.Capacity) + position) * 2 * HopperFlash.RowBytes) + (unit * UnitBytes)));
            if (!FlashInfinities.IsAny(value))
                continue;
            output.X = Restored(output.X, value.X);
            output.Y = Restored(output.Y, value.Y);
            output.Z = Restored(output.Z, value.Z);
            output.W = Restored(output.W, value.W);
        }
        return output;
    }

    private static uint Restored(uint output, uint value) =>
        Bf16.Pack(Fast.Add(Bf16.Low(output), FlashInfinities.OfLow(value)), Fast.Add(Bf16.High(output), FlashInfinities.OfHigh(value)));
}
