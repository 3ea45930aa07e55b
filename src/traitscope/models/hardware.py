"""What this machine has: matrix-product rate."""

import time


def matmul_rate(
    dtype: object,
    m: int = 2048,
    k: int = 576,
    n: int = 1536,
    seconds: float = 0.5,
    device: str = "cpu",
) -> float:
    """FLOP/s of [m, k] x [k, n] on the threads in use, or on a GPU: 2 m k n per product."""
    import torch

    a, b = torch.randn(m, k, device=device).to(dtype), torch.randn(n, k, device=device).to(dtype)
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    torch.nn.functional.linear(a, b)
    wait()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        torch.nn.functional.linear(a, b)
        wait()
        count += 1
    return 2 * m * k * n * count / (time.perf_counter() - start)
