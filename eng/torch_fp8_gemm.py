#!/usr/bin/env python3
"""Times PyTorch's block-scaled FP8 product (1 x 128 scales of x, 128 x 128 scales of W) on this machine's card: what
`bench gemm --formats Fp8Block+Fp8Group128` is compared with, and timed alike: replays of a graph of up to 20 ms, three to
warm up and the median of fifteen. A card that has rested runs faster than one at its power limit: the first replay after
half a second of rest is printed, too. Needs PyTorch with CUDA and a card of compute capability 9.0."""
import time

import torch

WARM_UPS, REPLAYS, MOST_LAUNCHES, MOST_MICROSECONDS, REST_SECONDS = 3, 15, 48, 20_000, 0.5
SHAPES = [(4096, 14336), (14336, 4096), (8192, 8192), (2048, 5120)]
ROWS = [512, 1024, 2048, 8192]


def microseconds(launch):
    """Of a launch: at rest, and in the median of many."""
    start, end = torch.cuda.Event(True), torch.cuda.Event(True)

    def timed(run, launches):
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1000 / launches

    launch()
    launches = int(max(1, min(MOST_LAUNCHES, MOST_MICROSECONDS / timed(launch, 1))))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(launches):
            launch()
    graph.replay()
    torch.cuda.synchronize()
    time.sleep(REST_SECONDS)
    times = [timed(graph.replay, launches) for _ in range(WARM_UPS + REPLAYS)]
    return times[0], sorted(times[WARM_UPS:])[REPLAYS // 2]


def main():
    torch.manual_seed(0)
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    for k, n in SHAPES:
        weights = torch.randn(n, k, device="cuda").to(torch.float8_e4m3fn)
        scale_w = torch.rand(n // 128, k // 128, device="cuda") + 0.5
        for m in ROWS:
            x = torch.randn(m, k, device="cuda").to(torch.float8_e4m3fn)
            scale_x = (torch.rand(k // 128, m, device="cuda") + 0.5).t()
            rested, us = microseconds(lambda: torch._scaled_mm(
                x, weights.t(), scale_a=scale_x, scale_b=scale_w.t(), out_dtype=torch.bfloat16))
            print(f"{k} x {n}, {m} rows: {us:.1f} us, {2 * m * n * k / us / 1e6:.0f} TFLOPS; rested {rested:.1f} us, "
                  f"{2 * m * n * k / rested / 1e6:.0f} TFLOPS", flush=True)


if __name__ == "__main__":
    main()
