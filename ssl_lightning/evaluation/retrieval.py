"""Search and classification by text: how well an encoder of pairs tells which image and text belong together."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from ssl_lightning.data.tokenizing import Tokenizer
from ssl_lightning.transforms.base import map_tensors
from ssl_lightning.transforms.padded import Padded, fill_up
from ssl_lightning.transforms.pairs import Pair


def compares(net: nn.Module | None) -> bool:
    """Tell whether an encoder compares images with texts: by `encode_image` and `encode_text`, or by `match`."""
    towers = all(callable(getattr(net, name, None)) for name in ("encode_image", "encode_text"))
    return towers or callable(getattr(net, "match", None))


def require_compared(net: nn.Module | None, inputs: Any, protocol: str) -> None:
    """Refuse data that are no pairs, and encoders that compare none.

    Args:
        net: The encoder; null for the raw inputs.
        inputs: A batch of the data.
        protocol: That asks.

    Raises:
        ValueError: If images and texts cannot be compared.
    """
    if not isinstance(inputs, Pair):
        raise ValueError(
            f"`protocols={protocol}` compares images with texts, and these data have not both; give pairs "
            "(`--data Pairs`), or leave it out."
        )
    if not compares(net):
        name = "raw input" if net is None else f"the encoder `{type(net).__name__}`"
        raise ValueError(
            f"`protocols={protocol}` compares images with texts, and {name} does not: it has neither `match` nor "
            "`encode_image` and `encode_text`; give a checkpoint of `ViLBERT`, `CLIP` or `SigLIP`, or leave it out."
        )


def scores(net: Any, images: Tensor, texts: Padded, batch_size: int = 256) -> Tensor:
    """Compare every image with every text.

    An encoder that encodes both apart compares by the product of what it makes of them; one that looks at both at once
    (`match`) is asked about each of the N M pairs, or for all of them (`compare`).

    Args:
        net: The encoder, in evaluation mode.
        images: Clean, `(N, C, S, S)`, on its device.
        texts: Of M texts, tokens `(M, T)`, on its device.
        batch_size: Samples that the encoder is given at once.

    Returns:
        `(N, M)`, float32, on the CPU; larger where they belong together.
    """
    if callable(getattr(net, "encode_image", None)):
        u = [net.encode_image(images[piece]) for piece in _pieces(len(images), batch_size)]
        v = [net.encode_text(_rows(texts, piece)) for piece in _pieces(len(texts.length), batch_size)]
        return (torch.cat(u).float() @ torch.cat(v).float().T).cpu()
    if callable(getattr(net, "compare", None)):
        return net.compare(images, texts, batch_size).float().cpu()  # type: ignore[no-any-return]
    count, total = len(images), len(texts.length)
    found = []
    for piece in _pieces(count * total, batch_size):
        both = torch.arange(piece.start, piece.stop, device=images.device)
        found.append(net.match(Pair(images[both // total], _rows(texts, both % total))).float().cpu())
    return torch.cat(found).view(count, total)


def name_texts(class_names: Sequence[str], template: str, facts: dict[str, Any]) -> Padded:
    """Write a text for each class.

    Args:
        class_names: Of all classes.
        template: Text with `{}` where the name stands.
        facts: Of the data: `tokenizer`, what its file holds, and perhaps `max_length`.

    Returns:
        Tokens `(classes, T)`.

    Raises:
        ValueError: If the template has no place for the name.
    """
    if template.count("{}") != 1:
        raise ValueError(f"`template={template!r:.100}` must have one `{{}}`, where the class's name stands.")
    tokenizer = Tokenizer.from_json(facts["tokenizer"])
    texts = [template.replace("{}", name) for name in class_names]
    return fill_up([torch.tensor(row) for row in tokenizer.encode(texts, facts.get("max_length"))])


def _pieces(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _rows(texts: Padded, rows: slice | Tensor) -> Padded:
    """Return some texts, filled up no further than the longest of them."""
    some: Padded = map_tensors(itemgetter(rows), texts)
    return some._replace(values=some.values[:, : int(some.length.max())])
