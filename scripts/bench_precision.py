"""Images a second of training steps by number format and memory format, on the CPU.

python scripts/bench_precision.py
python scripts/bench_precision.py --formats   # of several networks: how many times as fast by channels-last
"""

import argparse
import time

import torch
from torch import nn

from ssl_lightning.backbones import ConvNet, Torchvision
from ssl_lightning.engine.precision import fast_precision

SECONDS = 5.0
NETWORKS = {
    "ConvNet, 1 x 28 px": (lambda: ConvNet(1), (256, 1, 28, 28)),
    "ConvNet, 3 x 32 px": (lambda: ConvNet(3), (256, 3, 32, 32)),
    "ConvNet of width 64, 3 x 64 px": (lambda: ConvNet(3, 64), (64, 3, 64, 64)),
    "ResNet-18, 3 x 64 px": (lambda: Torchvision("resnet18"), (32, 3, 64, 64)),
    "ResNet-50, 3 x 64 px": (lambda: Torchvision("resnet50"), (16, 3, 64, 64)),
    "MobileNetV3, 3 x 64 px": (lambda: Torchvision("mobilenet_v3_small"), (32, 3, 64, 64)),
}


def speed(network: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, memory_format: torch.memory_format) -> float:
    """Measure forward and backward passes, after one that is not counted."""
    network = network.to(memory_format=memory_format)
    images = torch.randn(shape).to(memory_format=memory_format)
    begun, steps = 0.0, -1
    while steps < 0 or time.perf_counter() - begun < SECONDS:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = network(images).float().pow(2).mean()
        loss.backward()
        steps += 1
        begun = begun or time.perf_counter()
    return len(images) * steps / (time.perf_counter() - begun)


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", action="store_true", help="compare memory formats, of several networks")
    print(f"`--trainer.precision auto` is {fast_precision('cpu')} here")
    formats = (torch.contiguous_format, torch.channels_last)
    if parser.parse_args().formats:
        for name, (make, shape) in NETWORKS.items():
            first, last = (speed(make(), shape, torch.float32, memory_format) for memory_format in formats)
            print(f"{name:31} {first:6.0f} and {last:6.0f} images/s: {last / first:.2f}")
        return
    make, shape = NETWORKS["ConvNet, 3 x 32 px"]
    for dtype in (torch.float32, torch.bfloat16):
        for memory_format in formats:
            found = speed(make(), shape, dtype, memory_format)
            print(f"{str(dtype)[6:]:9} {str(memory_format)[6:]:18} {found:6.0f} images/s")


if __name__ == "__main__":
    main()
