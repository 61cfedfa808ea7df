"""The command `ssl-lightning`, and `python -m ssl_lightning`."""

import errno
import importlib
import os
import sys
from collections.abc import Callable

from ssl_lightning import __version__

OWN = ("evaluate", "sample", "export", "compare", "report", "list")  # the others are Lightning's, and `active`

USAGE = """usage: ssl-lightning COMMAND [options]; `ssl-lightning COMMAND --help` tells the options

  fit        pretrain a method on unlabelled data, or train a classifier
  validate   judge a checkpoint on the validation part
  test       judge a checkpoint on the test part
  evaluate   kNN, linear probe, fine-tuning and rank of finished encoders, on any data set, in one table
  sample     write new images, drawn from a GAN, SSGAN or VAE
  export     write an encoder for plain torchvision, timm, torch.export or ONNX
  predict    write a checkpoint's predictions or embeddings to a file
  active     active learning: train, ask for labels, again
  compare    run several strategies over several seeds, and say how sure the difference is
  report     make a page of finished active runs
  list       methods, strategies, backbones, data
"""


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments; null for those of the process.

    Returns:
        Exit status: 0 if all went well, 2 for a mistake in the arguments or the data, 130 if interrupted.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    try:
        return _command(arguments[0])(arguments)
    except KeyboardInterrupt:
        how = "add --ckpt_path FOLDER/checkpoints/last.ckpt" if arguments[0] == "fit" else "give the same command again"
        print(f"interrupted; {how} to go on", file=sys.stderr)
        return 130
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(
            f"ssl-lightning {arguments[0]}: error: {error}; free some space and go on: labels are safe", file=sys.stderr
        )
        return 2
    except ValueError as error:
        mistake = _mistake(error)
        if mistake is None:
            raise
        print(f"ssl-lightning {arguments[0]}: error: {mistake}", file=sys.stderr)
        return 2


def _command(name: str) -> Callable[[list[str]], int]:
    # each imports what it needs: listing and reports do without torch
    if name not in OWN:
        from ssl_lightning.commands import train

        return train.main
    module = importlib.import_module(f"ssl_lightning.commands.{name}")
    return lambda arguments: int(module.main(arguments[1:]))


def _mistake(error: BaseException | None) -> BaseException | None:
    """Find the user's mistake, a ValueError raised by our code, among an error and its causes; a defect has none."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        raised_in = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
        if isinstance(error, ValueError) and raised_in.startswith("ssl_lightning"):
            return error
        error = error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    sys.exit(main())
