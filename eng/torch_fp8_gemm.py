#!/usr/bin/env python3
"""Times PyTorch's block-scaled FP8 product (1 x 128 scales of x, 128 x 128 scales of W) on this machine's card: what
`bench gemm --formats Fp8Block+Fp8Group128` is compared with. Needs PyTorch with CUDA and a card of compute capability 9.0."""
import torch

REPEATS, RUNS, COPIES = 20, 7, 4
SHAPES = [(4096, 14336), (14336, 4096), (8192, 8192), (2048, 5120)]
ROWS = [512, 1024, 2048, 8192]


def microseconds(launch):
    for i in range(5):
        launch(i)
    start, end = torch.cuda.Event(True), torch.cuda.Event(True)
    times = []
    for _ in range(RUNS):
        start.record()
        for i in range(REPEATS):
            launch(i)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000 / REPEATS)
    return sorted(times)[RUNS // 2]


def main():
    torch.manual_seed(0)
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    for k, n in SHAPES:
        weights = [torch.randn(n, k, device="cuda").to(torch.float8_e4m3fn) for _ in range(COPIES)]
        scale_w = torch.rand(n // 128, k // 128, device="cuda") + 0.5
        for m in ROWS:
            x = torch.randn(m, k, device="cuda").to(torch.float8_e4m3fn)
            scale_x = (torch.rand(k // 128, m, device="cuda") + 0.5).t()
            us = microseconds(lambda i: torch._scaled_mm(
                x, weights[i % COPIES].t(), scale_a=scale_x, scale_b=scale_w.t(), out_dtype=torch.bfloat16))
            print(f"{k} x {n}, {m} rows: {us:.1f} us, {2 * m * n * k / us / 1e6:.0f} TFLOPS")


if __name__ == "__main__":
    main()
