"""The numbers of the special tokens, the same in every vocabulary of ours, and what another's calls its own."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

FILE = "tokenizer.json"
PAD, UNK, CLS, SEP, MASK = range(5)
SPECIAL = 5  # as many; ordinary tokens begin here
# what they are called, ours first, by vocabularies of BERT and of RoBERTa
NAMES = (("[PAD]", "<pad>"), ("[UNK]", "<unk>"), ("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>"))


def special_ids(numbers: dict[str, int]) -> tuple[int, ...]:
    """Return the numbers that a vocabulary gives to the special tokens, in the order of ours.

    Args:
        numbers: Of all tokens, by token.

    Raises:
        ValueError: If one is missing; the message is the names that were looked for.

    Example:
        >>> special_ids({"[MASK]": 9, "[PAD]": 0, "[UNK]": 7, "[CLS]": 3, "[SEP]": 4})
        (0, 7, 3, 4, 9)
    """
    missing = [names for names in NAMES if not set(names) & numbers.keys()]
    if missing:
        raise ValueError(", ".join(" or ".join(names) for names in missing))
    return tuple(next(numbers[name] for name in names if name in numbers) for names in NAMES)


def order_of(special: Sequence[int], size: int) -> Tensor:
    """Return another vocabulary's number of each of our tokens, where special ones change places with those at 0 to 4.

    Args:
        special: The other's numbers of the special tokens.
        size: Of the vocabulary.

    Returns:
        A permutation, int64, `(size,)`.

    Example:
        >>> order_of((0, 7, 3, 4, 9), 10)
        tensor([0, 7, 3, 4, 9, 5, 6, 1, 8, 2])
    """
    order = torch.arange(size)
    place = order.clone()  # of each of the other's numbers in the order
    for ours, theirs in enumerate(special):
        other, seat = int(order[ours]), int(place[theirs])
        order[ours], order[seat] = theirs, other
        place[theirs], place[other] = ours, seat
    return order


def numbers_in(text: str) -> dict[str, int]:
    """Return the number of every token of a tokenizer.

    Args:
        text: What its `tokenizer.json` holds.

    Raises:
        ValueError: If it is none.
    """
    try:
        told = json.loads(text)
        vocab = told["model"]["vocab"]
        pairs = vocab.items() if isinstance(vocab, dict) else ((row[0], place) for place, row in enumerate(vocab))
        found = {str(token): int(number) for token, number in pairs}
        found.update({str(row["content"]): int(row["id"]) for row in told.get("added_tokens") or ()})
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"it is no tokenizer.json ({type(error).__name__})") from error
    return found


def digest_of(text: str) -> str:
    """Return a short hash that tells tokenizers apart, whatever the spaces in their files.

    Args:
        text: What a `tokenizer.json` holds.
    """
    told = json.dumps(json.loads(text), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def tokenizer_json(name: str) -> str:
    """Return what the `tokenizer.json` of a model of Hugging Face holds.

    Args:
        name: On the hub, where it is downloaded once; or a folder.

    Raises:
        ValueError: If it has none, or it cannot be had.
    """
    try:
        if Path(name).is_dir():
            return (Path(name) / FILE).read_text(encoding="utf-8")
        from huggingface_hub import hf_hub_download  # which `tokenizers` brings

        return Path(hf_hub_download(name, FILE)).read_text(encoding="utf-8")
    except Exception as error:  # whatever the hub raises
        raise ValueError(
            f"the {FILE} of `{name}` is not there and cannot be downloaded ({type(error).__name__}); check the name, "
            "run once where there is a network, or give the folder of a model that was saved with its tokenizer."
        ) from error
