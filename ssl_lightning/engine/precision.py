"""Which number format is fast on the device that is there."""

import torch

AUTO = "auto"


def multiplies_bf16(accelerator: str = AUTO) -> bool:
    """Tell whether the hardware multiplies bf16, where others imitate it, several times slower than float32.

    Args:
        accelerator: As Lightning's: `cpu`, `gpu`, `cuda`, `mps`, `auto` for a GPU if there is one.

    Example:
        >>> multiplies_bf16("mps")
        False
    """
    if accelerator in ("gpu", "cuda", AUTO) and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if accelerator not in ("cpu", AUTO):
        return False
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def fast_precision(accelerator: str = AUTO) -> str:
    """Return Lightning's name of the number format that is fast: `bf16-mixed` or `32-true`."""
    return "bf16-mixed" if multiplies_bf16(accelerator) else "32-true"
