using GpuKit.Ilgpu.Kernels.Formats;
using GpuKit.Ilgpu.Kernels.Isa;
using ILGPU;
using ILGPU.Algorithms;

namespace GpuKit.Ilgpu.Kernels;

internal struct ExpertLayerArgs
{
    public const int GateUpMap = 0, DownMap = 128;

    public TensorMap GateUp, Down;

    /// <summary>Address of x[2048] BF16.</summary>
    public long X;

    /// <summary>Addresses of block scales, 128 × 128.</summary>
    public long GateUpScales, DownScales;

    public int GateUpScalesPerExpert, DownScalesPerExpert, DownScaleColumns;

    public long Posts, Exchange, Residual, Experts, PairWeights, Logits;

    public int Width, ExpertCount, Normalize;

    public long Stamps;

    public long Router, OtherPosts, OtherExchange;
}

internal struct LayerInputs
{
    public U4 X0, X1, X2, X3;
}

internal struct LayerSums
{
    public float Upper, Lower;
}

/// <summary>A routed layer of one token in one launch behind the router.</summary>
internal static class ExpertLayer
{
    private const int DownBlocks = 6, TilesPerExpert = 48, Width = 768;
    public const int Warps = 16, Threads = 32 * Warps, TopK = 8, Hidden = 2048;
    private const int SlotBytes = 2048, Slots = 7, WarpBytes = Slots * SlotBytes, Barriers = Warps * WarpBytes, WarpBarriers = 6, BarrierBytes = 8;
    private const int Known = Barriers + (Warps * WarpBarriers * BarrierBytes), Table = Known + 16;
    public const int SharedBytes = Table + 688;
    private const float Limit = 2147483648f;
    private const int Patience = 200_000;

    public static void Run<TDecode, TOrder>(ExpertLayerArgs a)
        where TDecode : struct, ISwitch
        where TOrder : struct, ISwitch
    {
        if (Group.IdxX == 0 & a.Stamps != 0) Clock.Global(a.Stamps, 0, 32768 + (Grid.IdxX * 8) + 0);
        ArrayView<byte> shared = SharedMemory.GetDynamic<byte>();
        uint window = SharedWindow.Open(ref shared[0]);
        int warp = Group.IdxX >> 5, lane = Group.IdxX & 31;
        uint own = window + (uint)(warp * WarpBytes), barrier = window + (uint)(Barriers + (warp * WarpBarriers * BarrierBytes));
        ArrayView<int> experts = shared.SubView(Table, 32).Cast<int>();
        ArrayView<float> weights = shared.SubView(Table + 32, 32).Cast<float>(), chosen = shared.SubView(Table + 640, 32).Cast<float>();
        if (lane == 0 & a.Stamps != 0) Clock.Mark(a.Stamps, 0, (((Grid.IdxX * 16) + warp) * 16) + 0);
        if (lane == 0)
        {
            for (int i = 0; i < WarpBarriers; i++)
                Mbarrier.Initialize(barrier + (uint)(i * BarrierBytes), 1);
            if (warp == 0)
            {
                Mbarrier.Initialize(window + Known, 1);
                Mbarrier.Initialize(window + Known + BarrierBytes, 1);
            }
            Mbarrier.FenceInitialized();
        }
        if (Group.IdxX == 0)
        {
            Tma.Prefetch(a.GateUp, ExpertLayerArgs.GateUpMap);
            Tma.Prefetch(a.Down, ExpertLayerArgs.DownMap);
        }
        ArrayView<float> parts = shared.SubView(Table + 64, Warps * 4).Cast<float>();
        ArrayView<int> order = shared.SubView(Table + 672, 4).Cast<int>();
        if (Group.IdxX == 0)
            order[0] = 0;
        GridDependency.Release();
        U2 rw = Mem.LoadRelaxed2From(a.Router + (((long)Grid.IdxX * Hidden * 2) + (Group.IdxX * 8)));
        if (Group.IdxX == 0 & a.Stamps != 0) Clock.Global(a.Stamps, 0, 32768 + (Grid.IdxX * 8) + 4);
        if (Group.IdxX == 0 & a.Stamps != 0) Clock.Sm(a.Stamps, 0, 32768 + (Grid.IdxX * 8) + 3);
        GridDependency.Wait();
        if (Group.IdxX == 0 & a.Stamps != 0) Clock.Global(a.Stamps, 0, 32768 + (Grid.IdxX * 8) + 5);
        U2 rx = Mem.LoadRelaxed2From(a.X + (Group.IdxX * 8));
        LayerInputs x = LoadInputs(a.X + (256 * warp) + ((lane & 3) * 32));
        float old = warp == 0 ? Interop.IntAsFloat(Mem.LoadRelaxedFrom(a.Residual + (((Grid.IdxX * 16) + (lane & 15)) * 4))) : 0;
        float dot = WarpOps.Sum(Fast.Fma(Bf16.High(rw.Y), Bf16.High(rx.Y), Fast.Fma(Bf16.Low(rw.Y), Bf16.Low(rx.Y), Fast.Fma(Bf16.High(rw.X), Bf16.High(rx.X), Bf16.Low(rw.X) * Bf16.Low(rx.X)))));
        if (lane == 0)
            parts[warp] = dot;
        Group.Barrier();
        if (Group.IdxX == 0 & a.Stamps != 0) Clock.Global(a.Stamps, 0, 32768 + (Grid.IdxX * 8) + 6);
        if (warp == 0)
        {
            float logit = parts[lane & 15];
            logit += WarpOps.ShuffleXor(logit, 1);
            logit += WarpOps.ShuffleXor(logit, 2);
            logit += WarpOps.ShuffleXor(logit, 4);
            logit += WarpOps.ShuffleXor(logit, 8);
            logit = logit >= -Limit ? IntrinsicMath.Min(logit, Limit) : -Limit;
            if (lane < RouterPosts.Copies)
                Mem.StoreRelaxedTo(a.Posts + (((lane * 128) + Grid.IdxX) * 4L), Interop.FloatAsInt(logit) | 1);
        }
        ArrayView<uint> logits = shared.SubView(Table + 128, 512).Cast<uint>();
        if (warp == 0)
        {
            RouterChoice choice = AwaitPosts(a);
            if (lane == 0 & a.Stamps != 0) Clock.Mark(a.Stamps, 0, (((Grid.IdxX * 16) + warp) * 16) + 1);
            logits[lane] = Interop.FloatAsInt(choice.Sum0);
            logits[lane + 32] = Interop.FloatAsInt(choice.Sum1);
            logits[lane + 64] = Interop.FloatAsInt(choice.Sum2);
            logits[lane + 96] = Interop.FloatAsInt(choice.Sum3);
            RouterRanks ranks = RouterSums.Rank(choice);
            int mine = Grid.IdxX / (TilesPerExpert / 3);
            for (int j = 0; j < TopK; j++)
            {
                RouterSums.Take(ref ranks, experts, chosen, j);
                if (j == mine)
                {
                    WarpOps.Barrier();
                    if (lane == 0)
                        Mbarrier.Arrive(window + Known);
                }
            }
            WarpOps.Barrier();
            if (lane == 0)
                Mbarrier.Arrive(window + Known + BarrierBytes);
        }
        Mbarrier.Wait(window + Known, 0);
        if (lane == 0 & a.Stamps != 0) Clock.Mark(a.Stamps, 0, (((Grid.IdxX * 16) + warp) * 16) + 2);
        if (Group.IdxX == 0 & a.Stamps != 0) Clock.Global(a.Stamps, 0, 32768 + (Grid.IdxX * 8) + 1);
        if (lane == 0)
        {
            RequestGate(a, experts, own, barrier, warp, 0);
        }
        float scale = LoadGateScale(a, experts, warp, lane);
        if (lane == 0 & a.Stamps != 0) Clock.Mark(a.Stamps, 0, (((Grid.IdxX * 16) + warp) * 16) + 3);
        if (lane == 0 & a.Stamps != 0) Clock.Mark(a.Stamps, 0, (((Grid.IdxX * 16) + warp) * 16) + 4);
        if (warp == 1 && lane < 16)
            Mem.StoreRelaxedTo(a.OtherPosts + (((Grid.IdxX * 16) + lane) * 4L), 0);
        if (warp == 2 && lane < 24)
            Mem.StoreRelaxedTo(a.OtherExchange + (((Grid.IdxX * 24) + lane) * 4L), uint.MaxValue);

        x = Arrange(x);
        uint line = own + (uint)Line(lane);
        ArrayView<float> partials = shared.Cast<float>();
        float downScale = 0;
        for (int i = 0; i < 3; i++)
        {
            Mbarrier.Wait(barrier + (uint)(i * BarrierBytes), 0);
            if (lane == 0 & a.Stamps != 0) Clock.Mark(a.Stamps, 0, (((Grid.IdxX * 16) + warp) * 16) + 5 + i);
            if (i == 0)
            {
                Mbarrier.Wait(window + Known + BarrierBytes, 0);
                downScale = LoadDownScale(a, experts, warp, lane);
            }
            if (lane == 0)
            {
                if (i < 2)
                {
                    if (TOrder.On)
                    {
                        int n = Atomic.Add(ref order[0], 1);
                        RequestGate(a, experts, window + (uint)((n & 15) * WarpBytes), window + (uint)(Barriers + ((n & 15) * WarpBarriers * BarrierBytes)), n & 15, 1 + (n >> 4));
                    }
                    else
                        RequestGate(a, experts, own, barrier, warp, i + 1);
                }
                else
                {
                    RequestDown(a, experts, own, barrier + (3 * BarrierBytes), warp);
                    RequestDown(a, experts, own + SlotBytes, barrier + (4 * BarrierBytes), warp + Warps);
                }
            }
            if (i == 1 & warp == 0)
                FinishRouting(a, logits, experts, chosen, weights);
            for (int m = 0; m < 2; m++)
            {
                LayerSums sums = Multiply(line + (uint)(((2 * i) + m) * SlotBytes), x, Get(scale, (2 * i) + m), default);
                if ((lane & 3) == 0)
                {
                    int at = (((warp * WarpBytes) + (6 * SlotBytes)) >> 2) + (32 * i) + (16 * m) + Row(lane);
                    partials[at] = sums.Upper;
                    partials[at + 8] = sums.Lower;
                }
            }
            WarpOps.Barrier();
        }
        if (lane == 0)
            RequestDown(a, experts, own + (2 * SlotBytes), barrier + (5 * BarrierBytes), warp + (2 * Warps));
        if (lane == 0 & a.Stamps != 0) Clock.Mark(a.Stamps, 0, (((Grid.IdxX * 16) + warp) * 16) + 9);
        Group.Barrier();
        if (lane == 0 & a.Stamps != 0) Clock.Mark(a.Stamps, 0, (((Grid.IdxX * 16) + warp) * 16) + 10);
        if (warp < 3)
            Activate(a, partials, warp, lane);
        if (lane == 0 & a.Stamps != 0) Clock.Mark(a.Stamps, 0, (((Grid.IdxX * 16) + warp) * 16) + 11);

        uint scratch = own + (5 * SlotBytes) + (uint)((lane & 3) * 32);
        ArrayView<uint> words = shared.Cast<uint>();
        int place = (((warp * WarpBytes) + (5 * SlotBytes)) >> 2) + (lane * 2);
        LayerSums down = default;
        if (TDecode.On)
        {
            Mbarrier.Wait(barrier + (3 * BarrierBytes), 0);
            LayerWeights w0 = Decode(line);
            Mbarrier.Wait(barrier + (4 * BarrierBytes), 0);
            LayerWeights w1 = Decode(line + SlotBytes);
            if (lane == 0 & a.Stamps != 0) Clock.Mark(a.Stamps, 0, (((Grid.IdxX * 16) + warp) * 16) + 12);
            for (int j = 0; j < 3; j++)
            {
                U2 posted = AwaitPosted(a.Exchange + ((warp + (j * Warps)) * 256) + (lane * 8));
                words[place + (j * 64)] = posted.X;
                words[place + (j * 64) + 1] = posted.Y;
            }
            WarpOps.Barrier();
            if (lane == 0 & a.Stamps != 0) Clock.Mark(a.Stamps, 0, (((Grid.IdxX * 16) + warp) * 16) + 13);
            down = Finish(Multiply(w0, LoadShared(scratch)), Get(downScale, 0) * weights[warp / DownBlocks], down);
            down = Finish(Multiply(w1, LoadShared(scratch + 256)), Get(downScale, 1) * weights[(warp + Warps) / DownBlocks], down);
            Mbarrier.Wait(barrier + (5 * BarrierBytes), 0);
            down = Multiply(line + (2 * SlotBytes), LoadShared(scratch + 512), Get(downScale, 2) * weights[(warp + (2 * Warps)) / DownBlocks], down);
        }
        else
        {
            for (int j = 0; j < 3; j++)
            {
                U2 posted = AwaitPosted(a.Exchange + ((warp + (j * Warps)) * 256) + (lane * 8));
                words[place + (j * 64)] = posted.X;
                words[place + (j * 64) + 1] = posted.Y;
                WarpOps.Barrier();
                Mbarrier.Wait(barrier + (uint)((3 + j) * BarrierBytes), 0);
                down = Multiply(line + (uint)(j * SlotBytes), LoadShared(scratch + (uint)(j * 256)), Get(downScale, j) * weights[(warp + (j * Warps)) / DownBlocks], down);
            }
        }
        if ((lane & 3) == 0)
        {
            int r = ((warp * WarpBytes) + (4 * SlotBytes)) >> 2;
            partials[r + Row(lane)] = down.Upper;
            partials[r + Row(lane) + 8] = down.Lower;
        }
        if (lane == 0 & a.Stamps != 0) Clock.Mark(a.Stamps, 0, (((Grid.IdxX * 16) + warp) * 16) + 14);
        Group.Barrier();
        if (warp == 0)
        {
            int from = ((4 * SlotBytes) >> 2) + (lane & 15) + ((lane >> 4) * 2 * WarpBytes);
            float sum = Four(partials, from) + Four(partials, from + WarpBytes);
            sum += WarpOps.ShuffleXor(sum, 16);
            if (lane < 16)
                Mem.StoreRelaxedTo(a.Residual + (((Grid.IdxX * 16) + lane) * 4L), Interop.FloatAsInt(old + sum));
        }
        if (lane == 0 & a.Stamps != 0) Clock.Mark(a.Stamps, 0, (((Grid.IdxX * 16) + warp) * 16) + 15);
        if (Group.IdxX == 0 & a.Stamps != 0) Clock.Global(a.Stamps, 0, 32768 + (Grid.IdxX * 8) + 2);
    }

    private static U2 AwaitPosted(long address)
    {
        U2 posted = default;
        for (int i = 0; i < Patience; i++)
        {
            posted = Mem.LoadRelaxed2From(address);
            if (WarpOps.Any(Missing(posted)) == 0)
                break;
        }
        return posted;
    }

    private static int Row(int lane) => ((lane & 4) == 0 ? 0 : 4) + (lane >> 3);

    // Of the lane's first 16 bytes of its row; rows of 128 bytes, 16-byte words exchanged by the row's number.
    private static int Line(int lane)
    {
        int row = Row(lane);
        return (row * 128) + ((((lane & 3) ^ row) & 7) << 4);
    }

    private static LayerInputs LoadInputs(long address)
    {
        LayerInputs x;
        x.X0 = Mem.LoadL2From(address);
        x.X1 = Mem.LoadL2From(address + 16);
        x.X2 = Mem.LoadL2From(address + 128);
        x.X3 = Mem.LoadL2From(address + 144);
        return x;
    }

    private static LayerInputs LoadShared(uint address)
    {
        LayerInputs x;
        x.X0 = SharedWindow.Load(address);
        x.X1 = SharedWindow.Load(address + 16);
        x.X2 = SharedWindow.Load(address + 128);
        x.X3 = SharedWindow.Load(address + 144);
        return x;
    }

    private static uint Missing(U2 x) => x.X == uint.MaxValue | x.Y == uint.MaxValue ? 1u : 0u;

    private static LayerInputs Arrange(LayerInputs x)
    {
        x.X0 = StreamedFp8.Arrange(x.X0);
        x.X1 = StreamedFp8.Arrange(x.X1);
        x.X2 = StreamedFp8.Arrange(x.X2);
        x.X3 = StreamedFp8.Arrange(x.X3);
        return x;
    }

    private static RouterChoice AwaitPosts(ExpertLayerArgs a)
    {
        int lane = Group.IdxX & 31;
        long posts = a.Posts + ((((long)(Grid.IdxX & (RouterPosts.Copies - 1)) * 128) + lane) * 4);
        RouterChoice choice = default;
        for (int i = 0; i < Patience; i++)
        {
            uint p0 = Mem.LoadRelaxedFrom(posts), p1 = Mem.LoadRelaxedFrom(posts + 128), p2 = Mem.LoadRelaxedFrom(posts + 256), p3 = Mem.LoadRelaxedFrom(posts + 384);
            choice.Sum0 = Interop.IntAsFloat(p0);
            choice.Sum1 = Interop.IntAsFloat(p1);
            choice.Sum2 = Interop.IntAsFloat(p2);
            choice.Sum3 = Interop.IntAsFloat(p3);
            if (WarpOps.Any(p0 == 0 | p1 == 0 | p2 == 0 | p3 == 0 ? 1u : 0u) == 0)
                break;
        }
        return choice;
    }

    private static int GateRow(ExpertLayerArgs a, ArrayView<int> experts, int i)
    {
        int tile = (Grid.IdxX * 3) + i, rank = tile / TilesPerExpert;
        return (experts[rank] * 2 * Width) + ((tile - (rank * TilesPerExpert)) * 16);
    }

    private static float Get(float scale, int lane) => Interop.IntAsFloat(WarpOps.Shuffle(Interop.FloatAsInt(scale), lane));

    // Lanes 0 to 5: gate and up of three tiles.
    private static float LoadGateScale(ExpertLayerArgs a, ArrayView<int> experts, int warp, int lane)
    {
        int row = GateRow(a, experts, IntrinsicMath.Min(lane >> 1, 2)) + ((lane & 1) * Width);
        return Mem.LoadReadOnlyFloat(a.GateUpScales + ((((long)(row >> 7) * 16) + warp) * 4));
    }

    // Lanes 0 to 2: down's three items.
    private static float LoadDownScale(ExpertLayerArgs a, ArrayView<int> experts, int warp, int lane)
    {
        int item = warp + (Warps * IntrinsicMath.Min(lane, 2)), pair = item / DownBlocks, block = item - (pair * DownBlocks);
        return Mem.LoadReadOnlyFloat(a.DownScales + ((((long)experts[pair] * a.DownScalesPerExpert) + ((Grid.IdxX >> 3) * DownBlocks) + block) * 4));
    }

    private static void RequestGate(ExpertLayerArgs a, ArrayView<int> experts, uint own, uint barrier, int warp, int i)
    {
        uint arrived = barrier + (uint)(i * BarrierBytes), slot = own + (uint)(2 * i * SlotBytes);
        int row = GateRow(a, experts, i);
        Mbarrier.ArriveExpecting(arrived, 2 * SlotBytes);
        Tma.Load(a.GateUp, ExpertLayerArgs.GateUpMap, slot, 128 * warp, row, arrived);
        Tma.Load(a.GateUp, ExpertLayerArgs.GateUpMap, slot + SlotBytes, 128 * warp, row + Width, arrived);
    }

    private static void RequestDown(ExpertLayerArgs a, ArrayView<int> experts, uint slot, uint arrived, int item)
    {
        int pair = item / DownBlocks, block = item - (pair * DownBlocks);
        Mbarrier.ArriveExpecting(arrived, SlotBytes);
        Tma.Load(a.Down, ExpertLayerArgs.DownMap, slot, 128 * block, (experts[pair] * Hidden) + (Grid.IdxX * 16), arrived);
    }

    private static void FinishRouting(ExpertLayerArgs a, ArrayView<uint> logits, ArrayView<int> experts, ArrayView<float> chosen, ArrayView<float> weights)
    {
        int lane = Group.IdxX & 31;
        float own = XMath.Exp(chosen[lane & 7] - chosen[0]), mass = lane < TopK ? own : 0;
        float l0 = Interop.IntAsFloat(logits[lane]), l1 = Interop.IntAsFloat(logits[lane + 32]), l2 = Interop.IntAsFloat(logits[lane + 64]), l3 = Interop.IntAsFloat(logits[lane + 96]);
        if (a.Normalize == 0)
            mass = XMath.Exp(l0 - chosen[0]) + XMath.Exp(l1 - chosen[0]) + XMath.Exp(l2 - chosen[0]) + XMath.Exp(l3 - chosen[0]);
        float weight = own / WarpOps.Sum(mass);
        if (lane < TopK)
            weights[lane] = weight;
        if (Grid.IdxX != 0)
            return;
        Mem.StoreRelaxedTo(a.Logits + (lane * 4L), Interop.FloatAsInt(l0));
        Mem.StoreRelaxedTo(a.Logits + ((lane + 32) * 4L), Interop.FloatAsInt(l1));
        Mem.StoreRelaxedTo(a.Logits + ((lane + 64) * 4L), Interop.FloatAsInt(l2));
        Mem.StoreRelaxedTo(a.Logits + ((lane + 96) * 4L), Interop.FloatAsInt(l3));
        if (lane < TopK)
        {
            Mem.StoreRelaxedTo(a.Experts + (lane * 4L), (uint)experts[lane]);
            Mem.StoreRelaxedTo(a.PairWeights + (lane * 4L), Interop.FloatAsInt(weight));
        }
    }

    private static LayerSums Multiply(uint line, LayerInputs x, float scale, LayerSums sums)
    {
        U4 upper0 = SharedWindow.Load(line), lower0 = SharedWindow.Load(line + 1024), upper1 = SharedWindow.Load(line ^ 64), lower1 = SharedWindow.Load((line ^ 64) + 1024);
        F4 first = Step(upper0, lower0, 0, x.X0, default), second = Step(upper1, lower1, 0, x.X2, default);
        first = Step(upper0, lower0, 1, x.X1, first);
        second = Step(upper1, lower1, 1, x.X3, second);
        first.X += second.X;
        first.Z += second.Z;
        return Finish(first, scale, sums);
    }

    private static LayerSums Finish(F4 part, float scale, LayerSums sums)
    {
        scale *= StreamedFp8.Correction;
        sums.Upper = Fast.Fma(part.X, scale, sums.Upper);
        sums.Lower = Fast.Fma(part.Z, scale, sums.Lower);
        return sums;
    }

    private static LayerWeights Decode(uint line)
    {
        U4 upper0 = SharedWindow.Load(line), lower0 = SharedWindow.Load(line + 1024), upper1 = SharedWindow.Load(line ^ 64), lower1 = SharedWindow.Load((line ^ 64) + 1024);
        LayerWeights w;
        w.U0 = StreamedFp8.Decode(upper0, 0, 0);
        w.L0 = StreamedFp8.Decode(lower0, 0, 0);
        w.U1 = StreamedFp8.Decode(upper0, 1, 0);
        w.L1 = StreamedFp8.Decode(lower0, 1, 0);
        w.U2 = StreamedFp8.Decode(upper1, 0, 0);
        w.L2 = StreamedFp8.Decode(lower1, 0, 0);
        w.U3 = StreamedFp8.Decode(upper1, 1, 0);
        w.L3 = StreamedFp8.Decode(lower1, 1, 0);
        return w;
    }

    private static F4 Multiply(LayerWeights w, LayerInputs x)
    {
        F4 first = Products(w.U0, w.L0, x.X0, default), second = Products(w.U2, w.L2, x.X2, default);
        first = Products(w.U1, w.L1, x.X1, first);
        second = Products(w.U3, w.L3, x.X3, second);
        first.X += second.X;
        first.Z += second.Z;
        return first;
    }

    private static F4 Products(U4 upper, U4 lower, U4 inputs, F4 part)
    {
        part = SkinnyProducts.Multiply<StreamedFp8>(upper.X, lower.X, upper.Y, lower.Y, inputs.X, inputs.Y, part);
        return SkinnyProducts.Multiply<StreamedFp8>(upper.Z, lower.Z, upper.W, lower.W, inputs.Z, inputs.W, part);
    }

    private static F4 Step(U4 row0, U4 row1, int step, U4 inputs, F4 part)
    {
        U4 upper = StreamedFp8.Decode(row0, step, 0), lower = StreamedFp8.Decode(row1, step, 0);
        part = SkinnyProducts.Multiply<StreamedFp8>(upper.X, lower.X, upper.Y, lower.Y, inputs.X, inputs.Y, part);
        return SkinnyProducts.Multiply<StreamedFp8>(upper.Z, lower.Z, upper.W, lower.W, inputs.Z, inputs.W, part);
    }

    // Four warps' sums; a warp's bytes are four times as many words apart.
    private static float Four(ArrayView<float> partials, int at) => (partials[at] + partials[at + (WarpBytes >> 2)]) + (partials[at + (WarpBytes >> 1)] + partials[at + (3 * (WarpBytes >> 2))]);

    private static void Activate(ExpertLayerArgs a, ArrayView<float> partials, int i, int lane)
    {
        int at = ((6 * SlotBytes) >> 2) + (32 * i) + lane;
        float sum = (Four(partials, at) + Four(partials, at + WarpBytes)) + (Four(partials, at + (2 * WarpBytes)) + Four(partials, at + (3 * WarpBytes)));
        float up = WarpOps.ShuffleXor(sum, 16), value = sum / (1f + XMath.Exp(-sum)) * up;
        float other = WarpOps.ShuffleXor(value, 2);
        int tile = (Grid.IdxX * 3) + i;
        if (lane < 16 && (lane & 2) == 0)
            Mem.StoreRelaxedTo(a.Exchange + (tile * 32L) + ((((lane >> 2) * 2) + (lane & 1)) * 4L), StreamedFp8.Scale(Bf16.Pack(value, other)));
    }
}

internal struct LayerWeights
{
    public U4 U0, L0, U1, L1, U2, L2, U3, L3;
}

internal interface ISwitch
{
    static abstract bool On { get; }
}

internal readonly struct SwitchOn : ISwitch
{
    public static bool On => true;
}

internal readonly struct SwitchOff : ISwitch
{
    public static bool On => false;
}
