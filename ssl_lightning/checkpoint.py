"""The one place that opens a checkpoint: what a module notes when it is saved, and what others read of it."""

import pickle
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from ssl_lightning.backbones import Backbone, as_backbone, build, describe, plain
from ssl_lightning.data.schema import schema_of
from ssl_lightning.engine.modalities import modality_of
from ssl_lightning.engine.naming import class_path
from ssl_lightning.engine.processes import first_process
from ssl_lightning.transforms.base import Clean, build_clean, describe_clean

FORMAT = 2  # of what `note` writes
BINDING = (
    "channels",
    "feature_dim",
    "vocab_size",
    "vocabulary",
    "sample_rate",
    "cardinalities",
)  # facts that an encoder's first layer is made for
ROUND = re.compile(r"round_(\d+)\.ckpt")  # what `active` calls the model of a round
HEAD = "head.1."  # a classifier's head: dropout, then the linear layer


def note(module: Any, checkpoint: dict[str, Any]) -> None:
    """Write into a checkpoint what others need to use it without the config: architecture, clean transform, facts.

    Args:
        module: With `backbone`, and perhaps `clean` and `facts`.
        checkpoint: As Lightning saves it.
    """
    checkpoint["ssl_lightning"] = {
        "format": FORMAT,
        "class_path": class_path(type(module)),
        "backbone": describe(module.backbone),
        "clean": describe_clean(getattr(module, "clean", None)),
        "facts": {name: _plain_value(value) for name, value in (getattr(module, "facts", None) or {}).items()},
    }
    if getattr(module, "_trainer", None) is not None:  # a fit that goes on keeps its number format
        checkpoint["ssl_lightning"]["precision"] = str(module.trainer.precision)


def _plain_value(value: Any) -> Any:
    if not isinstance(value, tuple | list):
        return value
    return [item if isinstance(item, int | float | list | tuple) else str(item) for item in value]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of ours, opened.

    Args:
        path: Of the file.
        method: Name of the class that was saved, such as SimCLR or Classifier.
        method_path: Path of that class.
        backbone: The encoder with its weights.
        clean: The transform that makes clean input for it; null where a stranger's was used, which keeps no arguments.
        facts: Of the data it was trained on: `num_classes`, `class_names`, `channels`, ...
        head: Of a classifier; else null.
        state_dict: All weights.
        hyper_parameters: Of the constructor.
    """

    path: str
    method: str
    method_path: str
    backbone: Backbone
    clean: nn.Module | None
    facts: dict[str, Any]
    head: nn.Linear | None
    state_dict: dict[str, Tensor]
    hyper_parameters: dict[str, Any]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the head's outputs; empty where none were known."""
        return tuple(self.facts.get("class_names") or ())

    @classmethod
    def open(
        cls,
        path: str | Path,
        backbone: nn.Module | None = None,
        clean: nn.Module | None = None,
        trust: bool = False,
        argument: str = "checkpoint",
    ) -> "Checkpoint":
        """Open a file that `fit` or `active` saved.

        What the file says is data: only classes of ours and of installed plug-ins are built from its description.

        Args:
            path: Of the file, or of a run's folder, whose newest is taken.
            backbone: Takes the weights; null to build the one that the file describes.
            clean: Takes the place of the file's clean transform; null for that.
            trust: Build classes that are neither ours nor of a plug-in, too.
            argument: Name of the argument that gave the path, for messages.

        Raises:
            ValueError: If it is no such file, names a class that is not known, or its weights do not fit `backbone`.
        """
        path = checkpoint_of(str(path), argument)
        saved = read(path, argument)
        about: dict[str, Any] = saved["ssl_lightning"]
        where = f"`{argument}={path}`"
        try:
            weights = {key: value for key, value in saved["state_dict"].items() if isinstance(value, Tensor)}
            description = dict(about["backbone"])
            facts = _checked_facts(about.get("facts"))
            hyper_parameters = {str(name): value for name, value in dict(saved.get("hyper_parameters") or {}).items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{where} is no checkpoint of ours ({type(error).__name__}: {error}).") from error
        mine = plain({key.removeprefix("backbone."): v for key, v in weights.items() if key.startswith("backbone.")})
        try:
            found = as_backbone(backbone) if backbone is not None else build(description, trust, facts)
            view = clean if clean is not None else _clean(about.get("clean"), trust)
        except Exception as error:  # whatever a constructor makes of what the file says
            raise ValueError(f"{where}: {error}") from error
        require_same_tokens(facts, found.init_args, where)
        if "vocabulary" in found.init_args:  # where nobody told it
            found.init_args["vocabulary"] = found.init_args["vocabulary"] or facts.get("vocabulary")
        _load(found, mine, where, description)
        head = None
        if f"{HEAD}weight" in weights and f"{HEAD}bias" in weights:
            classes, dim = weights[f"{HEAD}weight"].shape
            head = nn.Linear(dim, classes)
            head.load_state_dict({name: weights[HEAD + name] for name in ("weight", "bias")})
        name = str(about.get("class_path", ""))
        return cls(path, name.rpartition(".")[2], name, found, view, facts, head, weights, hyper_parameters)


class Pretrained(Backbone):
    """The encoder of a checkpoint, to go on with: other samples, another method, as SupCon where there are labels.

    What is built is the encoder itself, of its own class and with its weights; what is trained from it needs this file
    no more. `Classifier` takes it by `checkpoint`, and its clean view with it.

    Args:
        checkpoint: Path of a checkpoint, or folder of a run.

    Raises:
        ValueError: If there is none, or it is not of ours.

    Example:
        `--model SupCon --model.backbone Pretrained --model.backbone.checkpoint runs/fit-001`
    """

    def __new__(cls, checkpoint: str) -> Backbone:  # type: ignore[misc]
        """Open the checkpoint."""
        return Checkpoint.open(checkpoint).backbone

    def __init__(self, checkpoint: str) -> None:
        raise AssertionError("`__new__` builds an encoder of another class")  # here for its signature


def read(path: str | Path, argument: str = "checkpoint") -> dict[str, Any]:
    """Load a checkpoint's plain data, and nothing that is code.

    Args:
        path: Of the file.
        argument: Name of the argument that gave the path, for messages.

    Raises:
        ValueError: If it is no checkpoint of ours.
    """
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "is no file"
        raise ValueError(
            f"`{argument}={path}` {what}; give a checkpoint that `ssl-lightning fit` or `active` saved, such as "
            "runs/NAME/checkpoints/last.ckpt."
        )
    import ssl_lightning.engine.optim  # noqa: F401  # hyper-parameters hold its `OptimizerSpec`, which it lets in

    try:
        with warnings.catch_warnings(action="ignore"):  # torch's, on files that are refused below
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"`{argument}={path}` is no checkpoint of ours: it is another kind of file, or holds objects that would "
            "run code when loaded; give one that `ssl-lightning fit` or `active` saved."
        ) from error
    except Exception as error:  # torch.load raises whatever the file's bytes lead to
        raise ValueError(
            f"`{argument}={path}` is no checkpoint, or is damaged; give one that `ssl-lightning fit` or `active` saved."
        ) from error
    if not isinstance(saved, dict) or not isinstance(saved.get("ssl_lightning"), dict) or "state_dict" not in saved:
        raise ValueError(
            f"`{argument}={path}` is a file of torch, but no checkpoint of ours: it does not say which encoder it "
            "holds; give one that `ssl-lightning fit` or `active` saved."
        )
    return saved


def _clean(description: Any, trust: bool) -> Clean | None:
    return build_clean(description, trust) if isinstance(description, dict) else None


def _checked_facts(told: Any) -> dict[str, Any]:
    """Return the facts that a file tells, if classes are counted and named as classes are.

    Raises:
        ValueError: If they are not.
    """
    facts = dict(told or {})
    count, names = facts.get("num_classes"), facts.get("class_names")
    if count is not None and (not isinstance(count, int) or count < 0):
        raise ValueError(f"its `num_classes={count!r:.50}` is no number of classes")
    if names is not None:
        if not isinstance(names, list) or (count is not None and len(names) != count):
            raise ValueError(f"its `class_names={names!r:.50}` are not the names of {count} classes")
        facts["class_names"] = [str(name) for name in names]
    return facts


def _load(backbone: Backbone, weights: dict[str, Tensor], where: str, description: dict[str, Any]) -> None:
    mine = {key: tuple(value.shape) for key, value in backbone.state_dict().items()}
    theirs = {key: tuple(value.shape) for key, value in weights.items()}
    if mine != theirs:
        key = next(key for key in [*mine, *theirs] if mine.get(key) != theirs.get(key))
        raise ValueError(
            f"{where} holds another architecture: {describe_briefly(description)}, not "
            f"{describe_briefly(describe(backbone))}; first difference `{key}`: {theirs.get(key, 'absent')} there, "
            f"{mine.get(key, 'absent')} here. Leave `backbone` out to take the checkpoint's, and use data of the same "
            "kind and size."
        )
    backbone.load_state_dict(weights)


def describe_briefly(description: dict[str, Any]) -> str:
    """Write an architecture's description as a constructor call."""
    arguments = ", ".join(f"{key}={value!r:.60}" for key, value in (description.get("init_args") or {}).items())
    return f"{str(description.get('class_path')).rpartition('.')[2]}({arguments})"


def run_folder(path: str | Path) -> Path:
    """Return the folder of the run that a checkpoint belongs to."""
    folder = Path(path).parent
    return folder.parent if folder.name == "checkpoints" else folder


def checkpoint_of(path: str, argument: str = "checkpoint") -> str:
    """Find the newest checkpoint of a run whose folder is given, and say which; a file is itself.

    Args:
        path: Of a run's folder, or of a checkpoint.
        argument: Name of the argument that gave the path, for messages.

    Returns:
        Path of the last round's model, or of the last epoch's.

    Raises:
        ValueError: If it is a folder without either.
    """
    if not Path(path).is_dir():
        return path
    folder = Path(path) if Path(path).name == "checkpoints" else Path(path) / "checkpoints"
    numbered = [(int(found[1]), file) for file in folder.glob("round_*.ckpt") if (found := ROUND.fullmatch(file.name))]
    last = max(numbered)[1] if numbered else folder / "last.ckpt"
    if not last.is_file():
        there = sorted(str(file) for file in folder.glob("*.ckpt"))
        perhaps = f"; there is {', '.join(there[:5])}{' ...' * (len(there) > 5)}" if there else ""
        raise ValueError(
            f"`{argument}={path}` is a folder, and holds neither checkpoints/round_*.ckpt nor checkpoints/last.ckpt"
            f"{perhaps}; give a checkpoint, or the folder of a run that `ssl-lightning fit` or `active` left."
        )
    if first_process():
        print(f"checkpoint: {last}", flush=True)
    return str(last)


def require_facts(backbone: nn.Module, facts: dict[str, Any], who: str) -> None:
    """Check that an encoder takes the data's samples.

    Args:
        backbone: The encoder; what it was built with is compared, where it keeps that.
        facts: Of the data.
        who: Names the encoder, for messages.

    Raises:
        ValueError: If a fact that the encoder was built with is another one here.
    """
    for name, value in facts.items():
        built = getattr(backbone, "init_args", {}).get(name)
        if name not in BINDING or built is None or _plain_value(built) == _plain_value(value):
            continue
        if name == "vocabulary":
            raise ValueError(_other_tokens(who))
        raise ValueError(
            f"{who} was built for `{name}={built}`, and the data have `{name}={value}`; give data of {built} (where "
            f"they take it `--data.{name} {built}`), or another encoder."
        )


def require_same_tokens(told: dict[str, Any] | None, facts: dict[str, Any], who: str) -> None:
    """Check that data make tokens as those did that a checkpoint was trained on.

    Args:
        told: The checkpoint's facts.
        facts: Of the data.
        who: Names the checkpoint, for messages.

    Raises:
        ValueError: If they do not.
    """
    there, here = (told or {}).get("vocabulary"), facts.get("vocabulary")
    if None not in (there, here) and there != here:
        raise ValueError(_other_tokens(who))


def require_same_columns(told: dict[str, Any] | None, facts: dict[str, Any], who: str) -> None:
    """Check that rows have the columns of those that a checkpoint was trained on, in their order, and their categories.

    Args:
        told: The checkpoint's facts.
        facts: Of the data.
        who: Names the checkpoint, for messages.

    Raises:
        ValueError: If they do not.
    """
    there, here = schema_of(told or {}), schema_of(facts)
    if there is not None and here is not None and (differs := there.same_columns(here)):
        raise ValueError(
            f"{who} was trained on rows with {differs}; give the same columns in the same order, and name categories "
            "by `--data.categories '{colour: [blue, red]}'`; `predict CHECKPOINT FILE` reads a file by what the "
            "checkpoint knows."
        )


def _other_tokens(who: str) -> str:
    return (
        f"{who} was trained on the tokens of another tokenizer than that of the data; take its own, by the folder of "
        "the run that trained it: `--data.tokenizer RUN`."
    )


def require_taken(module: nn.Module, facts: dict[str, Any], kind: str) -> None:
    """Check that data, as they are, are of the kind that a method or an encoder takes.

    Args:
        module: The method or the encoder.
        facts: Of the data.
        kind: What `ssl-lightning list` calls it: `methods` or `backbones`.

    Raises:
        ValueError: If it takes others.
    """
    takes, modality = getattr(module, "takes", ()), modality_of(facts)
    if takes and modality and modality not in takes:
        who = f"the backbone `{type(module).__name__}`" if kind == "backbones" else f"`{type(module).__name__}`"
        raise ValueError(
            f"{who} takes {' or '.join(takes)}, and these data are {modality}; `ssl-lightning list {kind}` tells which "
            "takes what."
        )


def require_kind(backbone: nn.Module, facts: dict[str, Any], who: str) -> None:
    """Check that data are of the kind that a finished encoder takes; one in training may be given a transform to it.

    Args:
        backbone: The encoder; what it was built with is compared, where it keeps that.
        facts: Of the data.
        who: Names the encoder, for messages.

    Raises:
        ValueError: If it was built for facts of which the data have none, but others.
    """
    takes = [name for name in BINDING if name in getattr(backbone, "init_args", {})]
    have = [name for name in BINDING if name in facts]
    if takes and have and not set(takes) & set(have):
        raise ValueError(
            f"{who} was built for `{takes[0]}`, which the data do not have, and they have `{have[0]}`: they are of "
            "another kind; give data of the kind that it was trained on, or another encoder."
        )


def tell_unknown_clean(checkpoint: Checkpoint, instead: nn.Module) -> None:
    """Warn that a checkpoint does not say how its input was made."""
    rank_zero_warn(
        f"`{checkpoint.path}` does not say how its input was normalised (a transform of a stranger's class, which "
        f"keeps no arguments); taken is {type(instead).__name__} as it is by default."
    )


def match_classes(mine: Sequence[str], theirs: Sequence[str], who: str) -> Tensor:
    """Match the classes of data with those of a model, by name; say which the data lack.

    Args:
        mine: Names of the model's classes, in the order of its outputs.
        theirs: Names of the data's classes.
        who: Names the model, for messages.

    Returns:
        For each class of the data its number in the model, `(len(theirs),)`.

    Raises:
        ValueError: If the data have a class that the model does not know, as where one was renamed.

    Example:
        >>> match_classes(("cat", "dog"), ("dog", "cat"), "the model")
        tensor([1, 0])
    """
    numbers = {name: number for number, name in enumerate(mine)}
    missing, new = [name for name in mine if name not in theirs], [name for name in theirs if name not in numbers]
    if new:
        perhaps = f", and lack {_listed(missing)}: was a class renamed?" if missing else "."
        raise ValueError(
            f"the data have classes that {who} does not know: {_listed(new)}{perhaps} It knows {_listed(list(mine))}; "
            "rename them, or leave them out."
        )
    if missing:
        rank_zero_warn(f"the data have no class {_listed(missing)}, which {who} knows.")
    return torch.tensor([numbers[name] for name in theirs], dtype=torch.int64)


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:8]) + " ..." * (len(names) > 8)
