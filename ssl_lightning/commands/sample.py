"""The command `sample`: new images, or texts, from a generative method's checkpoint."""

import argparse
import inspect
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ssl_lightning.checkpoint import Checkpoint, checkpoint_of, run_folder
from ssl_lightning.commands.startup import add_trust
from ssl_lightning.data.tokenizing import Tokenizer
from ssl_lightning.engine.naming import known_class
from ssl_lightning.engine.ranges import whole
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.evaluation.pictures import sheet_of, to_pixels
from ssl_lightning.methods import SSLMethod


def load_method(path: str, trust: bool = False) -> SSLMethod:
    """Build a method as it was saved, with its weights.

    Args:
        path: Of a checkpoint.
        trust: Build classes that it names and that are neither ours nor of a plug-in.

    Returns:
        The method, in evaluation mode, on the CPU; its views are the default ones.

    Raises:
        ValueError: If it is no checkpoint of a method, or its class cannot be built again.
    """
    opened = Checkpoint.open(path, trust=trust)
    if opened.head is not None:
        raise ValueError(
            f"`checkpoint={path}` is of a {opened.method}, which sorts images and makes none; give one of a GAN, SSGAN "
            "or VAE that `ssl-lightning fit` saved."
        )
    kind: Any = known_class(opened.method_path, SSLMethod, trust)
    takes: set[str] = set()
    for parent in kind.__mro__:  # a method passes on what it does not name
        if issubclass(parent, SSLMethod):
            takes |= set(inspect.signature(parent.__init__).parameters)
    given = {key: value for key, value in opened.hyper_parameters.items() if key in takes - {"self", "optimizer"}}
    try:
        method: Any = kind(opened.backbone, **{**given, "clean": opened.clean})
        method.load_state_dict(opened.state_dict)
    except Exception as error:  # whatever a stranger's constructor raises
        raise ValueError(
            f"`checkpoint={path}` cannot be built again as a {opened.method} ({type(error).__name__}: "
            f"{str(error)[:300]}); give one of a method that can be imported, as `ssl-lightning fit` saves it."
        ) from error
    method.facts = dict(opened.facts)
    return method.eval()  # type: ignore[no-any-return]


@torch.inference_mode()
def draw(method: Any, count: int, seed: int) -> Tensor:
    """Draw images, 256 at a time.

    Args:
        method: With `sample(count, generator)`, as `GAN`, `SSGAN` and `VAE` have it.
        count: How many.
        seed: Of the noise.

    Returns:
        uint8, `(count, C, S, S)`.
    """
    generator = derive_generator(seed, "sample")
    parts = [method.sample(min(256, count - done), generator) for done in range(0, count, 256)]
    return to_pixels(torch.cat(parts), method)


def write_on(method: Any, options: argparse.Namespace) -> list[str]:
    """Write texts on from a beginning.

    Args:
        method: With `generate`, as `CausalText` has it.
        options: Of the command.

    Raises:
        ValueError: If the checkpoint does not tell its tokenizer.
    """
    text = method.facts.get("tokenizer")
    if not isinstance(text, str):
        raise ValueError(f"`checkpoint={options.checkpoint}` does not tell its tokenizer; call `generate` in Python.")
    tokenizer = Tokenizer.from_json(text)
    prompt = tokenizer.encode([options.prompt])[0][1:-1] if options.prompt.strip() else []
    generator = derive_generator(options.seed, "sample")
    found = method.generate(prompt, options.count, generator, options.length, options.temperature, options.top_k)
    return [tokenizer.decode(row) for row in found]


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "ssl-lightning sample",
        allow_abbrev=False,
        description="Write new images or texts, drawn from a generative method.",
    )
    parser.add_argument("checkpoint", help="file of a GAN, SSGAN, VAE or CausalText that `fit` saved, or its folder")
    parser.add_argument("--count", type=int, default=None, help="how many; default: 64 images, or 5 texts")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws")
    parser.add_argument("--folder", default=None, help="folder for what is written; default: `samples` in the run's")
    parser.add_argument("--prompt", default=None, help="beginning of each text that is written; default: none")
    parser.add_argument("--length", type=int, default=None, help="tokens at most of a text; default: 64")
    parser.add_argument(
        "--temperature",
        type=float,
        default=None,
        help="temperature of texts: below 1 for likelier tokens, 0 for the likeliest",
    )
    parser.add_argument("--top_k", type=int, default=None, help="draw texts from the k most probable tokens alone")
    add_trust(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Draw, and write.

    Args:
        arguments: Of the command line.

    Returns:
        Exit status.

    Raises:
        ValueError: For a mistake in the options, or a checkpoint that makes nothing new.
    """
    options = _options(arguments)
    if options.count is not None:
        whole(1, count=options.count)
    options.checkpoint = checkpoint_of(options.checkpoint)
    method: Any = load_method(options.checkpoint, options.trust)
    folder = Path(options.folder) if options.folder else run_folder(options.checkpoint) / "samples"
    if hasattr(method, "generate"):
        return _texts(method, options, folder)
    given = [name for name in ("prompt", "length", "temperature", "top_k") if getattr(options, name) is not None]
    if given:
        raise ValueError(
            f"`{given[0]}={getattr(options, given[0])}` is about texts, and `{type(method).__name__}` makes none; "
            "leave it out, or give a checkpoint of `CausalText`."
        )
    if not hasattr(method, "sample"):
        raise ValueError(
            f"`checkpoint={options.checkpoint}`: `{type(method).__name__}` makes no new images; give one "
            "of a GAN, SSGAN or VAE, or of a method of your own with `sample(count, generator)`."
        )
    return _images(method, options, folder)


def _texts(method: Any, options: argparse.Namespace, folder: Path) -> int:
    options.count = 5 if options.count is None else options.count
    options.length = 64 if options.length is None else options.length
    options.temperature = 1.0 if options.temperature is None else options.temperature
    options.prompt = options.prompt or ""
    texts = write_on(method, options)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    print("\n\n".join(texts))
    print(f"\nwrote {len(texts)} texts to {folder}/texts.txt, one a line")
    return 0


def _images(method: Any, options: argparse.Namespace, folder: Path) -> int:
    count = 64 if options.count is None else options.count
    folder.mkdir(parents=True, exist_ok=True)
    pixels = draw(method, count, options.seed)
    for number, image in enumerate(pixels):
        Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()).save(folder / f"{number:05d}.png")
    side = min(16, max(1, round(count**0.5)))
    rows = [part for part in torch.split(pixels[: side * side], side) if len(part) == side]
    grid = sheet_of({str(number): row for number, row in enumerate(rows)})
    Image.fromarray(grid.permute(1, 2, 0).squeeze(2).numpy()).save(folder / "grid.png")
    print(f"wrote {count} images to {folder}, and the first {len(rows) * side} side by side to {folder}/grid.png")
    return 0
