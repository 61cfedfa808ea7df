"""The command `ssl-lightning`, and `python -m ssl_lightning`."""

import atexit
import errno
import gc
import importlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ssl_lightning import __version__
from ssl_lightning.commands.glance import OPTIONS, glance
from ssl_lightning.commands.launch import FOLDER
from ssl_lightning.commands.mistakes import COMMANDS, no_command, own_mistake

TRAINED = ("fit", "validate", "test", "active")  # commands of commands/train.py; each other has a file of its name
REMEDIES = {
    errno.ENOENT: "give a path that exists, or where one can be made",
    errno.EACCES: "there is no permission for it; give a folder or file of your own",
    errno.EPERM: "there is no permission for it; give a folder or file of your own",
    errno.EROFS: "its file system cannot be written; give a folder elsewhere",
    errno.ENOSPC: "free some space and give the same command again: finished epochs and labels are safe",
    errno.EDQUOT: "free some of your quota and give the same command again: finished epochs and labels are safe",
    errno.EFBIG: "its file system takes no file of that size; give a folder elsewhere",
    errno.EIO: "its disk or network cannot be read or written; give a folder elsewhere",
    errno.EISDIR: "it is a folder; give a file",
    errno.ENOTDIR: "a part of that path is a file; give another folder",
    errno.EEXIST: "it is there already, and no folder; give another path",
    errno.ELOOP: "its links lead in a circle; give another path",
    errno.ENAMETOOLONG: "the name is too long; give a shorter one",
}
USAGE = "\n".join(
    [
        "usage: ssl-lightning COMMAND [options]; `ssl-lightning COMMAND --help` tells the options\n",
        *(f"  {name:<9}  {what}" for name, what in COMMANDS.items()),
        "",
    ]
)


def console() -> int:
    """Run the command of this process, and leave it sooner than Python would: a second goes into freeing modules."""
    leave: list[int] = []
    atexit.register(lambda: _leave(leave))  # first in, so called when all that others registered is done
    status = main()
    leave.append(status)
    return status


def _leave(status: list[int]) -> None:
    if status:  # else a defect is told by its traceback
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status[0])


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments; null for those of the process.

    Returns:
        Exit status: 0 if all went well, 2 for a mistake in the arguments or the data, 130 if interrupted, 143 if
        stopped by SIGTERM.
    """
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    if arguments[0] not in COMMANDS:
        print(f"ssl-lightning: error: {no_command(arguments[0])}", file=sys.stderr)
        return 2
    if arguments[0] in TRAINED and arguments[1:] in (["-h"], ["--help"]):
        from ssl_lightning.commands.short_help import short_help

        print(short_help(arguments[0], OPTIONS[arguments[0]]))
        return 0
    if arguments[1:] == ["--help", "all"]:
        arguments = arguments[:2]
    try:
        if "torch" not in sys.modules:  # else a stranger's class may be there already
            glance(arguments)
        return _command(arguments[0])(arguments)
    except KeyboardInterrupt:
        return _interrupted(arguments[0])
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns one into the other
            return _interrupted(arguments[0])
        if type(stop).__name__ == "SIGTERMException":  # Lightning's, which need not be imported to know it
            return _interrupted(arguments[0], 143, "stopped by SIGTERM")
        return int(stop.code or 0)  # argparse has said why
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except Exception as error:
        mistake = own_mistake(error)
        said = str(mistake) if mistake is not None else _system(error)
        if said is None:
            raise
        print(f"ssl-lightning {arguments[0]}: error: {said}", file=sys.stderr)
        return 2


def _command(name: str) -> Callable[[list[str]], int]:
    # each imports what it needs: listing and reports do without torch
    collects = gc.isenabled()
    gc.disable()  # imports make no garbage, of which looking for it takes a sixth of their time
    try:
        module = importlib.import_module(f"ssl_lightning.commands.{'train' if name in TRAINED else name}")
    finally:
        if collects:
            gc.enable()
    return module.main if name in TRAINED else lambda arguments: int(module.main(arguments[1:]))


def _interrupted(command: str, status: int = 130, what: str = "interrupted") -> int:
    """Say how to go on, and return the exit status."""
    last = Path(os.environ.get(FOLDER, "")) / "checkpoints" / "last.ckpt"
    add = f"add --ckpt_path {last}" if command == "fit" and FOLDER in os.environ and last.exists() else ""
    print(f"{what}; {add or 'give the same command again'} to go on", file=sys.stderr)
    return status


def _system(error: BaseException | None) -> str | None:
    """Say what the file system refused, among an error and its causes; null if it is something else."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in REMEDIES:
            where = f"`{error.filename}`: " if error.filename is not None else ""
            return f"{where}{error.strerror}; {REMEDIES[error.errno]}."
        error = error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    sys.exit(console())
