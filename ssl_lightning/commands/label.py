"""The command `label`: the page where people label what an active run asks for."""

import argparse
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

STORE = "labels.sqlite"


def main(argv: list[str]) -> int:
    """Serve the labelling page of a run until it is interrupted.

    Args:
        argv: The run's folder and options.

    Returns:
        Exit status.

    Raises:
        ValueError: If there is no such folder or store, or an option is out of its range.
    """
    parser = argparse.ArgumentParser(
        prog="ssl-lightning label",
        description="Serve the page where people label what a run of `ssl-lightning active` asks for. It needs the "
        "run's folder only, and may be started before the run asks, beside it, or after it was killed. Keep the "
        "printed address to yourselves: who has it can label.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument("--store", metavar="URL", help=f"its label store; default: sqlite:///RUN/{STORE}")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to serve at; 0.0.0.0 for other machines, too; default: 127.0.0.1"
    )
    parser.add_argument(
        "--port", type=int, default=8765, help="port, or the next that is free; 0 for any; default: 8765"
    )
    parser.add_argument(
        "--lease", metavar="SECONDS", type=float, default=300,
        help="how long a sample is kept for the person who looks at it; default: 300",
    )  # fmt: skip
    parser.add_argument("--open", action="store_true", help="open the page in this machine's browser")
    parser.add_argument(
        "--attached", action="store_true", help="end when standard input does, with the program that started this one"
    )
    args = parser.parse_args(argv)
    store = _checked(args.run, args.store, args.port, args.lease)

    from ssl_lightning.labelling.page.server import serve

    serve(
        args.run,
        store,
        args.host,
        args.port,
        args.lease,
        args.attached,
        args.open,
        lambda text: print(text, flush=True),
    )
    return 0


def _checked(run: Path, store: str | None, port: int, lease: float) -> str:
    """Refuse what cannot be served; return the store's URL."""
    if not 0 <= port <= 65535:
        raise ValueError(f"`port={port}` must be from 0 to 65535; leave it out for 8765, or give 0 for any.")
    if not 10 <= lease <= 86400:
        raise ValueError(f"`lease={lease:g}` must be from 10 to 86400 seconds; leave it out for 300.")
    if not run.is_dir():
        raise ValueError(
            f"`RUN={run}` is no folder; give that of a run of `ssl-lightning active --oracle Human`, which prints it."
        )
    url = f"sqlite:///{run / STORE}" if store is None else store
    try:
        parsed = make_url(url)
    except ArgumentError:
        return url  # the store says what a URL looks like
    file = parsed.database
    if parsed.get_backend_name() == "sqlite" and (not file or file == ":memory:" or not Path(file).is_file()):
        named = f"`RUN={run}` holds no label store `{STORE}`" if store is None else f"`store={store}` is no file"
        raise ValueError(
            f"{named}; give the folder of a run that `ssl-lightning active --oracle Human` began, or begin one."
        )
    return url
