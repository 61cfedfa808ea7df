"""Compare the batched views with lightly's `SimCLRTransform`, or a folder of JPEG files with its decoder, in one run.

    python scripts/bench_views.py
    python scripts/bench_views.py --folder

Views: both follow one recipe: crops of 0.2 to 1 of the area, flips, colour jitter of strength 0.5, grayscale 0.2,
normalised, without and with blur (probability 0.5), two float32 views of each image (gray at 28 px). lightly works as
its dataset would: image by image, from PIL images to tensors, in one process, and in as many processes as ours has
threads, which keep what they made (a loader would have to pass it on); gray images it gets in three channels, as it
makes of them.
Ours works on uint8 batches on the CPU. Everything is warmed up first, then timed in turns; the table gives medians
over the repetitions and ratios of the medians. The kernels of the blurs differ: ours has about a tenth of the image,
lightly's PIL one has no limit. `by operations` are ours made by torch's operations on whole batches, as on a GPU.

`--folder` writes JPEG files of 500 x 375 px, and reads them as `ImageFolder` does where they are too many to keep:
decoded alone, then with two views of each image, in one process and with as many loader processes as threads.
"""

import argparse
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import lightly
import torch
import torchvision
from lightly.transforms import SimCLRTransform
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader
from torchvision.transforms.v2.functional import to_pil_image

from ssl_lightning.data.images import LazyImages
from ssl_lightning.transforms.image import SimCLRViews

CASES = {8: (3, (256,)), 28: (1, (256,)), 32: (3, (128, 256, 512)), 96: (3, (64,)), 224: (3, (32,))}
FILES, BATCH = 256, 64  # of the folder
Key = tuple[int, int, int, float]
theirs: dict[Key, Callable[[slice], object]] = {}  # filled before the processes are forked


def seconds(run: Callable[[], object], repeats: int = 1) -> float:
    """Return what one call takes, on average over `repeats` calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def make_case(key: Key) -> tuple[Callable[[], object], Callable[[], object], int]:
    """Return our two runs, and how many images lightly's covers, which `theirs` has then."""
    size, channels, batch, blur = key
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch, channels, size, size), dtype=torch.uint8, generator=generator)
    ours = SimCLRViews(size=size, strength=0.5, blur=blur)
    other = SimCLRTransform(input_size=size, cj_strength=0.5, min_scale=0.2, gaussian_blur=blur)
    pictures = [to_pil_image(image.expand(3, -1, -1)) for image in images[: min(batch, 16 if size > 64 else 64)]]
    theirs[key] = lambda part: [other(picture) for picture in pictures[part]]
    batched = SimCLRViews(size=size, strength=0.5, blur=blur)
    batched.view._by_kernel = batched.view._by_operations  # type: ignore[method-assign]
    return lambda: ours(images, generator), lambda: batched(images, generator), len(pictures)


def one_part(key: Key, part: slice) -> None:
    """Make lightly's views of some pictures, in a process of their own."""
    torch.set_num_threads(1)
    theirs[key](part)


def compare_views(sizes: Iterable[int], repetitions: int) -> None:
    """Print the table of views."""
    keys = [(size, CASES[size][0], batch, blur) for size in sizes for batch in CASES[size][1] for blur in (0.0, 0.5)]
    cases = {key: make_case(key) for key in keys}
    processes = torch.get_num_threads()
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        rows = {key: time_case(key, *cases[key], pool, processes, 0) for key in keys}
        for _ in range(repetitions):
            for key in keys:
                rows[key] += time_case(key, *cases[key], pool, processes, 3 if key[0] <= 32 else 1)
    print(
        f"| px | batch | blur | ours, views/s | by operations | lightly, 1 | lightly, {processes} "
        "| ours to operations | to 1 | to all |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    for key in keys:
        mine, *others = (statistics.median(column) for column in zip(*rows[key], strict=True))
        speeds = " | ".join(f"{speed:,.0f}" for speed in (mine, *others))
        print(
            f"| {key[0]} | {key[2]} | {key[3]} | {speeds} | {' | '.join(f'{mine / other:.1f}' for other in others)} |"
        )


def time_case(
    key: Key, ours: Callable[[], object], batched: Callable[[], object], pictures: int, pool: Pool, processes: int,
    repeats: int,
) -> list[tuple[float, ...]]:  # fmt: skip
    """Return views a second of ours, by operations, of lightly in one process, and in several; none of a warming up."""
    parts = [(key, slice(place, None, processes)) for place in range(processes)]
    timed = (
        seconds(ours, max(1, repeats)) / key[2],
        seconds(batched) / key[2],
        seconds(lambda: theirs[key](slice(None))) / pictures,
        seconds(lambda: pool.starmap(one_part, parts, chunksize=1)) / pictures,
    )
    return [tuple(2 / taken for taken in timed)] if repeats else []


def write_files(folder: Path) -> list[Path]:
    """Write photographs as cameras and the web have them: parts of the two that come with scikit-learn."""
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    paths = [folder / f"{number:03d}.jpg" for number in range(FILES)]
    for number, path in enumerate(paths):
        left, top = number % 40, number // 40
        part = photographs[number % 2].crop((left, top, left + 600, top + 420))
        part.resize((500, 375), Image.Resampling.LANCZOS).save(path, quality=90)
    return paths


def compare_folder(sizes: Iterable[int], repetitions: int) -> None:
    """Print the table of folders."""
    workers = torch.get_num_threads()
    print(
        f"| px | decoder alone, images/s | views alone | both, one process | share | both, {workers} workers | share "
        "| most that these cores allow |\n|---:|---:|---:|---:|---:|---:|---:|---:|"
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder))
        for size in sizes:
            samples = LazyImages(paths, torch.zeros(FILES, dtype=torch.int64), [path.name for path in paths], 3, size)
            runs = folder_runs(samples, SimCLRViews(strength=0.5), workers)
            for run in runs:
                run()
            times = [[seconds(run) for run in runs] for _ in range(repetitions)]
            decoder, views, one, several = (FILES / statistics.median(column) for column in zip(*times, strict=True))
            print(
                f"| {size} | {decoder:,.0f} | {views:,.0f} | {one:,.0f} | {one / decoder:.2f} | {several:,.0f} "
                f"| {several / decoder:.2f} | {views / (views + decoder):.2f} |"
            )


def folder_runs(samples: LazyImages, views: SimCLRViews, workers: int) -> list[Callable[[], object]]:
    """Return passes over a folder: decoding alone, views alone, both in one process, both with loader processes."""
    generator = torch.Generator().manual_seed(0)
    batches = [list(range(start, start + BATCH)) for start in range(0, FILES, BATCH)]
    decoded = samples.__getitems__(batches[0]).input
    loader: DataLoader[Any] = DataLoader(
        samples, batch_sampler=batches, collate_fn=lambda batch: batch, num_workers=workers, persistent_workers=True
    )
    return [
        lambda: [samples.__getitems__(batch) for batch in batches],
        lambda: [views(decoded, generator) for _ in batches],
        lambda: [views(samples.__getitems__(batch).input, generator) for batch in batches],
        lambda: [views(batch.input, generator) for batch in loader],
    ]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(CASES), help="pixels")
    parser.add_argument("--repetitions", type=int, default=15, help="timings of each case; their median is printed")
    parser.add_argument("--folder", action="store_true", help="a folder of JPEG files instead of views alone")
    arguments = parser.parse_args()
    print(
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, lightly {lightly.__version__}, "
        f"Python {platform.python_version()}, {torch.get_num_threads()} threads, {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}, {arguments.repetitions} repetitions"
    )
    if arguments.folder:
        compare_folder(arguments.sizes or (32, 96, 224), arguments.repetitions)
    else:
        compare_views(arguments.sizes or CASES, arguments.repetitions)


if __name__ == "__main__":
    main()
