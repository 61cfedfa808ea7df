"""Draw what the methods of the methods' table do with images they have not seen, for their pages in docs/methods.

Command: `.venv/bin/python scripts/method_pictures.py` (after scripts/methods_table.py; needs data/cifar10). Writes
docs/images/methods/NAME.png: the rows of the method's `pictures`, for the same twelve test images.
"""

import argparse
import re
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ssl_lightning.data import ImageFolder
from ssl_lightning.evaluation.pictures import sheet_of, to_pixels
from ssl_lightning.sample import load_method
from ssl_lightning.seeding import derive_generator

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "docs" / "images" / "methods"


def main() -> None:
    """Draw a sheet for each checkpoint whose method has pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12, help="images a row")
    options = parser.parse_args()
    data = ImageFolder(root=str(ROOT / "data" / "cifar10"), image_size=32, limit=11000, val_size=1000)
    data.setup("test")
    images: Any = data.test_images
    every = torch.arange(0, len(images), len(images) // options.count)[: options.count]
    pixels = images.__getitems__(every.tolist()).input
    PLACE.mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "runs" / "methods").glob("*/checkpoints/last.ckpt")):
        method: Any = load_method(str(path))
        if not hasattr(method, "pictures"):
            continue
        with torch.inference_mode():
            rows = method.pictures(method.clean(pixels), derive_generator(0, "pictures"))
        sheet = sheet_of({name: to_pixels(row, method) for name, row in rows.items()})
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(method).__name__).lower()
        Image.fromarray(sheet.permute(1, 2, 0).squeeze(2).numpy()).save(PLACE / f"{name}.png", optimize=True)
        print(f"{name}.png: {', '.join(rows)}")


if __name__ == "__main__":
    main()
