"""`ssl-lightning report`: one self-contained HTML page on finished runs."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ssl_lightning.experiments.analysis import Analysis
from ssl_lightning.experiments.chapter import Chapter, active_chapter, fit_chapter
from ssl_lightning.experiments.model_view import guesses_of
from ssl_lightning.experiments.report import write_report
from ssl_lightning.experiments.runs import COMPARISON_FILE, Comparison, Run, find_runs, group_runs, read_comparison
from ssl_lightning.experiments.trained import is_fit

MODELS = 3  # runs whose models a page shows; of more it tells curves alone

Look = Callable[[Path], tuple[Analysis | None, str]]


def main(argv: list[str]) -> int:
    """Entry point of `ssl-lightning report`."""
    args = _parser().parse_args(argv)
    first = args.folders[0]
    fits, folders = _divided(args.folders)
    comparison = _comparison(folders, args.metric)
    runs = [run for arm in comparison.arms.values() for run in arm] if comparison else []
    look = _looker(args, len(runs) + len(fits))
    chapters, guesses = _chapters(runs, fits, look)
    path = write_report(comparison, args.output or first / "report.html", args.title, chapters, guesses)
    print(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ssl-lightning report",
        description="Write one self-contained HTML page on runs of `ssl-lightning active`, `compare` or `fit`: curves, "
        "what was queried in each round, how sure differences are, and what the last model makes of the data.",
        allow_abbrev=False,
    )
    help_folder = "folder of a run, of a comparison, or with runs below it; several active runs are arms of one page"
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help=help_folder)
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="page to write; default: report.html in the (first) folder"
    )
    parser.add_argument(
        "--metric", metavar="KEY", help="what to show, such as test/accuracy (the default) or train/loss"
    )
    parser.add_argument("--title", default="", help="heading of the page")
    parser.add_argument("--no-model", action="store_true", help="leave out what needs the checkpoint and the data")
    help_map = "how embeddings are put on a plane: pca at once, tsne in seconds, umap (needs umap-learn)"
    parser.add_argument("--map", choices=("pca", "tsne", "umap"), default="pca", help=help_map)
    help_limit = "samples of the pool, and of the test part, that the model looks at, evenly chosen; default: 20000"
    parser.add_argument("--limit", metavar="N", type=int, default=20_000, help=help_limit)
    parser.add_argument(
        "--accelerator", default="auto", help="device of the model: cpu, gpu, or auto for what there is"
    )
    trust = (
        "build classes that config or checkpoint name and that are neither ours nor a plug-in's: they run their code"
    )
    parser.add_argument("--trust", action="store_true", help=trust)
    return parser


def _divided(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Tell folders of `fit`, given or found where there is no active run, from those of `active`."""
    fits, others = [], []
    for folder in folders:
        if is_fit(folder):
            fits.append(folder)
        elif (
            not any(folder.rglob("rounds.csv"))
            and not any(folder.rglob(COMPARISON_FILE))
            and (found := sorted(path.parent for path in folder.rglob("config.yaml") if is_fit(path.parent)))
        ):
            fits += found
        else:
            others.append(folder)
    return fits, others


def _comparison(folders: Sequence[Path], metric: str | None) -> Comparison | None:
    if not folders:
        return None
    if len(folders) == 1 and (folders[0] / COMPARISON_FILE).is_file():
        comparison = read_comparison(folders[0])
        return replace(comparison, metric=metric or comparison.metric)
    return group_runs([run for folder in folders for run in find_runs(folder)], metric)


def _chapters(runs: Sequence[Run], fits: Sequence[Path], look: Look) -> tuple[list[Chapter], dict[str, str]]:
    """Make a chapter of a single active run, and of each fit."""
    chapters, guesses = [], {}
    if len(runs) == 1:
        analysis, note = look(runs[0].folder)
        guesses = guesses_of(analysis)
        trained = is_fit(runs[0].folder)  # of a comparison of methods
        chapters.append(
            fit_chapter(runs[0].folder, analysis, note) if trained else active_chapter(runs[0], analysis, note)
        )
    for folder in fits:
        chapters.append(fit_chapter(folder, *look(folder), prefix=f"r{len(chapters)}"))
    return chapters, guesses


def _looker(args: argparse.Namespace, count: int) -> Look:
    """Return what looks at a run by its model, and says in a line why that cannot be."""

    def look(folder: Path) -> tuple[Analysis | None, str]:
        if args.no_model:
            return None, ""
        if count > MODELS:
            return None, f"What its model makes of the data: `ssl-lightning report {folder}`."
        from ssl_lightning.commands.analyse import analyse  # torch takes seconds to import
        from ssl_lightning.functional.projection import require_map

        require_map(args.map)
        try:
            return analyse(folder, args.map, args.accelerator, args.trust, args.limit), ""
        except (ValueError, OSError) as error:
            note = f"What the model makes of the data is left out: {error}"
            print(f"{folder}: {note}", file=sys.stderr)
            return None, note

    return look
