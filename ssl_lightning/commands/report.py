"""`ssl-lightning report`: one self-contained HTML page on finished runs."""

import argparse
from dataclasses import replace
from pathlib import Path

from ssl_lightning.experiments.report import write_report
from ssl_lightning.experiments.runs import COMPARISON_FILE, find_runs, group_runs, read_comparison


def main(argv: list[str]) -> int:
    """Entry point of `ssl-lightning report`."""
    parser = argparse.ArgumentParser(
        prog="ssl-lightning report",
        description="Write one self-contained HTML page on runs of `ssl-lightning active` or `ssl-lightning compare`: "
        "learning curves, a table, how sure differences are, and the images queried in each round.",
        allow_abbrev=False,
    )
    help_folder = "folder of a comparison, of one run, or with runs below it; several are shown as arms of one page"
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help=help_folder)
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="page to write; default: report.html in the (first) folder"
    )
    parser.add_argument(
        "--metric", metavar="KEY", help="what to show, such as test/accuracy (the default) or train/loss"
    )
    parser.add_argument("--title", default="", help="heading of the page")
    args = parser.parse_args(argv)
    first = args.folders[0]
    if len(args.folders) == 1 and (first / COMPARISON_FILE).is_file():
        comparison = read_comparison(first)
        comparison = replace(comparison, metric=args.metric or comparison.metric)
    else:
        comparison = group_runs([run for folder in args.folders for run in find_runs(folder)], args.metric)
    path = write_report(comparison, args.output or first / "report.html", args.title)
    print(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser")
    return 0
