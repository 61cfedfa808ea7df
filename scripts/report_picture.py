"""Draw the picture of docs/report.md: two parts of the report of an active run on the digits.

Command: `.venv/bin/python scripts/report_picture.py` (a minute or two). Needs Chromium, as the tests of the page do.
"""

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from ssl_lightning.__main__ import main

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "report.png"
RUN = ["active", "-c", "experiment/digits_active", "--strategy", "BALD", "--folder"]


def shots(page: Path) -> list[Image.Image]:
    """Return pictures of the figures on a classifier, and of its map."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1100, "height": 900}, color_scheme="light")
        view.goto(page.as_uri())
        parts = [view.locator(".two:has(.confusion)"), view.locator(".map")]
        found = [Image.open(io.BytesIO(part.screenshot())).convert("RGB") for part in parts]
        browser.close()
    return found


def draw() -> None:
    """Run, report, photograph."""
    with tempfile.TemporaryDirectory() as folder:
        for arguments in ([*RUN, folder], ["report", folder]):
            if main(arguments):
                raise SystemExit(1)
        parts = shots(Path(folder) / "report.html")
    width, gap = max(part.width for part in parts), 16
    picture = Image.new("RGB", (width, sum(part.height + gap for part in parts)), "white")
    top = 0
    for part in parts:
        picture.paste(part, (0, top))
        top += part.height + gap
    picture.quantize(128).save(PICTURE, optimize=True)


if __name__ == "__main__":
    draw()
