"""From the CPU's memory to a device, without waiting for what the device still computes."""

import torch
from torch import Tensor

WAITS = ("cpu", "mps")  # kinds of devices that Lightning copies to at once, too


def onto(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return a tensor on a device, as the next operation there finds it.

    `tensor.to(device)` waits until a GPU has done all that it was given before. What is drawn for the next step on the
    CPU would then lie idle behind the last step: here it is put into the queue. The tensor may be changed or dropped
    right afterwards, unless it is pinned.

    Args:
        tensor: On the CPU, or on the device already.
        device: Where to.
        dtype: To convert to; null for the tensor's own.
    """
    return tensor.to(device, dtype, non_blocking=device.type not in WAITS)


def home(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Return tensors in the CPU's memory, where what is chosen one after the other does not wait for a device."""
    return tuple(tensor.cpu() for tensor in tensors)


class Copied:
    """A copy on a device of a tensor that many steps look things up in, made once."""

    def __init__(self) -> None:
        self._of: Tensor | None = None
        self._copy: Tensor | None = None

    def there(self, tensor: Tensor, device: torch.device) -> Tensor:
        """Return the tensor on a device; as long as it is the same one, the copy made before.

        Args:
            tensor: That nobody writes to meanwhile.
            device: Where to.
        """
        if self._copy is None or self._of is not tensor or self._copy.device != device:
            self._of, self._copy = tensor, onto(tensor, device)
        return self._copy
