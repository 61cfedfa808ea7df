"""Open every page of the built site in headless Chromium, as on a desktop and on a phone, and say what is wrong.

Command: `bash scripts/docs.sh look`. Wrong is what is wider than the screen, a picture that does not load or is of one
colour, an error in the console, a request that leaves the machine. `--shots FOLDER` keeps a picture of each page.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

SITE = Path(__file__).parent.parent / "build" / "site" / "html"
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
LOOK = """async () => {
  const wrong = [];
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 0) wrong.push(`wider than the screen by ${wide} px`);
  for (const image of document.querySelectorAll("article img")) {
    image.loading = "eager";
    try { await image.decode(); } catch { wrong.push("picture does not load: " + image.src); continue; }
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [64, 64];
    const brush = canvas.getContext("2d");
    brush.drawImage(image, 0, 0, 64, 64);
    let pixels;
    try { pixels = new Uint32Array(brush.getImageData(0, 0, 64, 64).data.buffer); } catch { continue; }
    if (pixels.every(pixel => pixel === pixels[0])) wrong.push("picture of one colour: " + image.src);
  }
  const copy = document.querySelector("article").cloneNode(true);
  copy.querySelectorAll("pre, code, math").forEach(part => part.remove());
  const text = copy.textContent;
  const raw = /\\\\(frac|sum|mathrm|log|tau|lVert)|\\$\\$|:math:|^>>> /gm;
  for (const found of text.matchAll(raw)) wrong.push("raw: " + found[0]);
  const inside = element => element.closest(".diagram, .formula, .md-typeset__scrollwrap, pre, .highlight, .output");
  for (const part of document.querySelectorAll("article > *, article math, article svg.flow, article img")) {
    const box = part.getBoundingClientRect();
    const leaves = box.width && box.right > innerWidth + 1 && !inside(part);
    if (leaves) wrong.push("leaves the screen: " + part.outerHTML.slice(0, 80));
  }
  return wrong;
}"""


def launch(playwright: Any) -> Any:
    """Start Chromium, which may read the pixels of pictures in files."""
    options = ["--no-sandbox", "--allow-file-access-from-files"]
    return playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)


def look(page: Any, path: Path) -> list[str]:
    """Open a page, and return what is wrong with it."""
    wrong: list[str] = []
    if path.name == "404.html":  # made for a server's root
        return wrong
    page.on("console", lambda said: wrong.append(f"console: {said.text}") if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("request", lambda asked: wrong.append(f"leaves: {asked.url}") if asked.url.startswith("http") else None)
    page.goto(path.as_uri(), wait_until="load")
    wrong += page.evaluate(LOOK)
    return wrong


def main() -> None:
    """Look at all pages at both sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=Path, help="folder for a picture of each page")
    parser.add_argument("--only", default="", help="part of the names of pages")
    options = parser.parse_args()
    pages = [path for path in sorted(SITE.rglob("*.html")) if options.only in path.as_posix()]
    bad = 0
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for size, (width, height) in SIZES.items():
            for path in pages:
                page = browser.new_page(viewport={"width": width, "height": height})
                name = path.relative_to(SITE).as_posix()
                for line in dict.fromkeys(look(page, path)):
                    bad += 1
                    print(f"{size} {name}: {line}")
                if options.shots:
                    shot = options.shots / size / f"{name.replace('/', '-')}.png"
                    page.screenshot(path=shot, full_page=True)
                page.close()
    print(f"{len(pages)} pages at {len(SIZES)} sizes, {bad} wrong")
    sys.exit(bool(bad) or not pages)


if __name__ == "__main__":
    main()
