"""Which tokens of a text are hidden, and what stands in their place."""

import torch
from torch import Tensor

from ssl_lightning.engine.devices import onto
from ssl_lightning.transforms.padded import Padded, inside
from ssl_lightning.transforms.text.tokens import MASK, SPECIAL
from ssl_lightning.transforms.text.views import scattered

PRIME = 1_000_003


def random_draws(inputs: Padded, generator: torch.Generator | None) -> Tensor:
    """Draw three numbers from [0, 1) for every token, `(3, N, T)`, whatever the texts are filled up to."""
    return torch.stack([scattered(inputs.length, inputs.values.shape[1], generator) for _ in range(3)])


def fixed_draws(inputs: Padded) -> Tensor:
    """Return three numbers from [0, 1) for every token that hang on its text alone, `(3, N, T)`: for validation."""
    values, length = inputs.values.cpu().long(), inputs.length.tolist()
    draws = torch.zeros(3, *values.shape)
    for place, (row, count) in enumerate(zip(values, length, strict=True)):
        seed = 0
        for number in row[:count].tolist():
            seed = (seed * PRIME + number) % 2**61
        draws[:, place, :count] = torch.rand(3, count, generator=torch.Generator().manual_seed(seed))
    return draws


def chosen_tokens(inputs: Padded, share: float, draws: Tensor, starts: Tensor | None = None) -> Tensor:
    """Choose tokens to be predicted: each with a probability, and at least one of each text; no special token.

    Args:
        inputs: N texts.
        share: The probability.
        draws: From [0, 1), `(N, T)`.
        starts: Which tokens begin a word, `(vocab_size,)`: words are chosen as a whole; null for single tokens.

    Returns:
        Boolean, `(N, T)`, on the CPU.
    """
    values, length = inputs.values.cpu().long(), inputs.length.cpu()
    ordinary = inside(length, values.shape[1]) & (values >= SPECIAL)
    if starts is not None:
        place = torch.arange(values.shape[1]).expand_as(values)
        before = torch.cat([torch.zeros_like(ordinary[:, :1]), ordinary[:, :-1]], dim=1)
        begins = starts.cpu()[values] | ~ordinary | ~before
        draws = draws.gather(1, place.masked_fill(~begins, 0).cummax(dim=1).values)  # of the word's first token
    draws = draws.masked_fill(~ordinary, 2.0)
    least = draws.amin(dim=1, keepdim=True)
    return ordinary & ((draws < share) | (draws == least))


def hidden_tokens(inputs: Padded, chosen: Tensor, draws: Tensor, vocab_size: int) -> Padded:
    """Return the texts with `MASK` in place of 80 % of the chosen tokens, any ordinary token in place of 10 %.

    Args:
        inputs: N texts.
        chosen: Boolean, `(N, T)`.
        draws: From [0, 1), `(2, N, T)`: what becomes of a token, and which takes its place.
        vocab_size: Number of tokens.
    """
    values = inputs.values
    what, which = onto(draws, values.device)
    chosen = onto(chosen, values.device)
    other = (SPECIAL + which.double() * (vocab_size - SPECIAL)).long().clamp(max=vocab_size - 1).to(values.dtype)
    values = torch.where(chosen & (what < 0.8), MASK, values)
    return inputs._replace(values=torch.where(chosen & (what >= 0.8) & (what < 0.9), other, values))
