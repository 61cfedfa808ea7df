"""The command `start`: from a folder to a model; each step an ordinary config in the run's folder."""

import argparse
from collections.abc import Sequence

from ssl_lightning.commands.active import read_classes
from ssl_lightning.commands.parsing import Parser
from ssl_lightning.commands.start_plan import TEST_SIZE
from ssl_lightning.commands.start_run import Result, StartRun
from ssl_lightning.commands.startup import load_plugins, say
from ssl_lightning.engine.naming import meant
from ssl_lightning.engine.quiet import quieten
from ssl_lightning.engine.ranges import above, between, one_of, seeds, whole

ORACLES = ("GroundTruth", "Human")


def start(
    source: str,
    labels: int = 500,
    minutes: float = 60.0,
    oracle: str | None = None,
    classes: Sequence[str] | str | None = None,
    folder: str | None = None,
    seed: int = 0,
    test_size: float = TEST_SIZE,
    config: str | None = None,
    dry_run: bool = False,
) -> Result | None:
    """Go from a folder to a model: look, pretrain, ask for labels, train, test, predict, report.

    Each step is a config in the run's folder, which may be edited and given again. The same call goes on where it
    stopped.

    Args:
        source: Folder of pictures, sounds or texts, or a table.
        labels: To ask for, at most.
        minutes: For all but the answers of people.
        oracle: Who answers: `GroundTruth`, a simulation by the data's own labels, or `Human`; null for the first where
            all is labelled.
        classes: That people can answer, beside those the data name: a list, or names with commas between them.
        folder: Of the run; null for `runs/start-NAME`.
        seed: Of everything.
        test_size: Fraction of the labelled samples that only test, where no folder says which.
        config: With a `data` that says how to read the source, where looking at it is wrong.
        dry_run: Write the configs and print the commands, no more.

    Returns:
        What came of it; null of a dry run.

    Raises:
        ValueError: If an option does not fit, or the data.
    """
    whole(2, labels=labels)
    above(0, minutes=minutes)
    seeds(seed=seed)
    between(0, 1, "[)", test_size=test_size)
    if oracle is not None and oracle not in ORACLES:
        raise ValueError(f"`oracle={oracle}` is not possible{meant(oracle, ORACLES)}; required is one of GroundTruth, "
                         "Human.")  # fmt: skip
    one_of((False, True), dry_run=dry_run)
    names = read_classes(classes if isinstance(classes, str) else list(classes or [])) or None
    options = argparse.Namespace(
        labels=labels, minutes=minutes, oracle=oracle, classes=names, folder=folder, seed=seed, test_size=test_size,
        config=config, dry_run=dry_run,
    )  # fmt: skip
    quieten()
    load_plugins()
    run = StartRun(str(source), options)
    run.prepare()
    if dry_run:
        say("\n".join(run.commands()))
        return None
    result = run.run()
    say("\nstep by step, each config to be edited as you like:\n" + "\n".join(run.commands()))
    return result


def parser() -> Parser:
    """Return the command's options."""
    options = Parser("ssl-lightning start", allow_abbrev=False, description="From a folder to a model, in one command.")
    options.add_argument("source", type=str, metavar="FOLDER", help="folder of pictures, sounds, texts, or a table")
    options.add_function_arguments(start, skip={"source", "dry_run"})
    options.add_argument("--dry-run", "--dry_run", action="store_true", help="write the configs, print the commands")
    return options


def main(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: Of the command line.

    Returns:
        Exit status.

    Raises:
        ValueError: For a mistake in the options or the data.
    """
    given = parser().parse_args(arguments).as_dict()
    start(**given)
    return 0
