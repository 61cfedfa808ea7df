"""Images a second of a training step of `ConvNet` by number format and memory format, on the CPU.

python scripts/bench_precision.py
"""

import time

import torch

from ssl_lightning.backbones import ConvNet
from ssl_lightning.engine.precision import fast_precision


def speed(dtype: torch.dtype, memory_format: torch.memory_format, seconds: float = 5.0) -> float:
    """Measure forward and backward passes of 256 images of 32 px."""
    net = ConvNet(3).to(memory_format=memory_format)
    images = torch.randn(256, 3, 32, 32).to(memory_format=memory_format)
    begun, steps = 0.0, -1  # the first step is not counted
    while steps < 0 or time.perf_counter() - begun < seconds:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = net(images).float().pow(2).mean()
        loss.backward()
        steps += 1
        begun = begun or time.perf_counter()
    return len(images) * steps / (time.perf_counter() - begun)


if __name__ == "__main__":
    print(f"`--trainer.precision auto` is {fast_precision('cpu')} here")
    for dtype in (torch.float32, torch.bfloat16):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            print(f"{str(dtype)[6:]:9} {str(memory_format)[6:]:18} {speed(dtype, memory_format):6.0f} images/s")
