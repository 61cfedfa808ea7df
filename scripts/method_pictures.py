"""Draw what the methods of the methods' table do with images they have not seen, for their pages in docs/methods.

Command: `.venv/bin/python scripts/method_pictures.py` (after scripts/methods_table.py; needs data/cifar10). Writes
docs/images/methods/NAME.png: the rows of the method's `pictures`, for the same twelve test images; and
docs/reconstruction.md: how far what is built up is from 1,000 test images, beside the mean training image.
"""

import argparse
import datetime
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ssl_lightning.commands.sample import load_method
from ssl_lightning.data import Batch, ImageFolder
from ssl_lightning.engine.seeding import derive_generator
from ssl_lightning.evaluation.pictures import sheet_of, to_pixels
from ssl_lightning.methods.adversarial import AdversarialMethod

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "docs" / "images" / "methods"
PAGE = ROOT / "docs" / "reconstruction.md"
BUILT = {"reconstructed", "rebuilt", "painted in"}
TEXT = """# Is what is built up near the image?

Command: `.venv/bin/python scripts/method_pictures.py` (after scripts/methods_table.py), {date}. Mean squared error, in
normalised pixels, of 1,000 test images of CIFAR-10, by the methods of [the table](methods-table.md); beside it the
error of the mean of 10,000 training images at the same pixels. Where a part is hidden, hidden pixels alone count.

| method | error | of the mean image | share |
| --- | ---: | ---: | ---: |
{rows}

MAE predicts patches up to their mean and deviation, which its row is therefore given: the error is that of structure
within patches. Of 1, the variance of a normalised patch, which is the error of the patch's own mean, {mae:.2f} is left.
"""


def rows_of(method: Any, pixels: Tensor) -> dict[str, Tensor]:
    """Return a method's pictures of uint8 images."""
    with torch.inference_mode():
        found: dict[str, Tensor] = method.pictures(method.clean(pixels), derive_generator(0, "pictures"))
    return found


def errors(rows: dict[str, Tensor], mean: Tensor) -> tuple[float, float] | None:
    """Return the error of what was built up, where it is not what was seen, and that of the mean image."""
    built = next((rows[name] for name in BUILT if name in rows), None)
    if built is None:
        return None
    images = rows["images"]
    where = rows["seen"] != images if "seen" in rows else torch.ones_like(images, dtype=torch.bool)
    return float((built - images)[where].pow(2).mean()), float((mean - images)[where].pow(2).mean())


def main() -> None:
    """Draw a sheet for each checkpoint whose method has pictures, and measure those that build images up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12, help="images a row")
    options = parser.parse_args()
    data = ImageFolder(root=str(ROOT / "data" / "cifar10"), image_size=32, limit=11000, val_size=1000)
    data.setup("test")
    images: Any = data.test_samples
    every = torch.arange(0, len(images), len(images) // 1000)[:1000]
    pixels = images.__getitems__(every.tolist()).input
    data.setup("fit")
    training: Any = data.train_samples
    mean_pixels = training.__getitems__(data.train_indices.tolist()).input
    PLACE.mkdir(parents=True, exist_ok=True)
    lines, mae = [], float("nan")
    for path in sorted((ROOT / "runs" / "methods").glob("*/checkpoints/last.ckpt")):
        method: Any = load_method(str(path))
        if not hasattr(method, "pictures") or isinstance(method, AdversarialMethod):  # those: scripts/gan_mnist.py
            continue
        kind = type(method).__name__
        rows = rows_of(method, pixels[:: len(pixels) // options.count][: options.count])
        sheet = sheet_of({name: to_pixels(row, method) for name, row in rows.items()})
        name = type(method).__module__.rpartition(".")[2]
        Image.fromarray(sheet.permute(1, 2, 0).squeeze(2).numpy()).save(PLACE / f"{name}.png", optimize=True)
        print(f"{name}.png: {', '.join(rows)}")
        found = errors(rows_of(method, pixels), method.clean(mean_pixels).mean(dim=0))
        if found:
            lines.append(f"| {kind} | {found[0]:.3f} | {found[1]:.3f} | {found[0] / found[1]:.0%} |")
        if kind == "MAE":
            batch = Batch(pixels, torch.zeros(len(pixels)), torch.zeros(len(pixels)))
            with torch.inference_mode():
                mae = float(method.compute_loss([method.clean(pixels)], batch)["loss"])
    PAGE.write_text(TEXT.format(date=datetime.date.today(), rows="\n".join(lines), mae=mae))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
