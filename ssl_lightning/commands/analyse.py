"""What a run's last model makes of its data: opened once, kept beside the run for `report`."""

import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor

from ssl_lightning import active, data, labelling  # noqa: F401  # imported, their classes can be named bare
from ssl_lightning.active.cases import advice, sort_cases
from ssl_lightning.checkpoint import checkpoint_of
from ssl_lightning.commands.parsing import Parser
from ssl_lightning.commands.pictured import clearest, evenly, most_confident_errors, nearest
from ssl_lightning.commands.predict import Predictor, load_predictor
from ssl_lightning.commands.sheet import draw_sheet
from ssl_lightning.commands.sources import batches, parts_of, require_fit
from ssl_lightning.commands.startup import load_plugins, say
from ssl_lightning.data.base import DataModule
from ssl_lightning.data.labelled_by import ChosenSamples
from ssl_lightning.data.samples import Part
from ssl_lightning.engine.naming import known_class
from ssl_lightning.engine.passes import make_fabric
from ssl_lightning.engine.quiet import quieten
from ssl_lightning.engine.ranges import whole
from ssl_lightning.experiments.analysis import FILE, FORMAT, NOT_ASKED, PARTS, Analysis, read_analysis
from ssl_lightning.experiments.runs import read_yaml
from ssl_lightning.functional.projection import Map, draw_map
from ssl_lightning.functional.scoring import entropy, mean_prediction, mutual_information
from ssl_lightning.labelling import LabelStore, Query
from ssl_lightning.transforms.base import map_tensors

LIMIT = 20_000  # samples of a part that are looked at
DRAWN = 1_500  # points on the map
ASKED = 1_000  # of these, samples that were asked for, at most
BATCH = 256
DRAWS = 100  # dropout masks: with the usual 20, shares of the three cases differ by a fifth of the pool between seeds


class Looked(NamedTuple):
    """What a model says of samples, each with one row.

    Attributes:
        places: Of the samples in their part, those that could be read.
        embeddings: `(n, dim)`, float32.
        log_probabilities: `(n, classes)`; `(n, 0)` of an encoder.
        disagreement: Mutual information of the members, in nats; NaN where there are none.
        own: Mean entropy of the members.
        case: As `sort_cases` has it; -1 where there are no members.
    """

    places: list[int]
    embeddings: Tensor
    log_probabilities: Tensor
    disagreement: Tensor
    own: Tensor
    case: Tensor


def analyse(
    folder: Path, kind: Map = "pca", accelerator: str = "auto", trust: bool = False, limit: int = LIMIT
) -> Analysis:
    """Open a run's last model and data, look at pool and test part, and keep what a report shows of it.

    What was kept is taken where neither checkpoint, queries nor the options have changed.

    Args:
        folder: Of a run of `fit` or `active`.
        kind: How embeddings are put on a plane.
        accelerator: Device.
        trust: Build classes that config or checkpoint name and that are neither ours nor of a plug-in.
        limit: Look at so many samples of a part at most, evenly chosen, and at all that were asked for.

    Raises:
        ValueError: If the checkpoint or the data cannot be opened, or do not fit.
    """
    checkpoint = Path(checkpoint_of(str(folder), "folder"))
    whole(2, limit=limit)
    made_of: dict[str, Any] = {"format": FORMAT, "map": kind, "limit": limit}
    made_of |= {path.name: _stamp(path) for path in (checkpoint, folder / "queries.csv")}
    known = read_analysis(folder / FILE)
    if known is not None and known.about["made_of"] == made_of:
        return known
    quieten()
    load_plugins()
    predictor = load_predictor(str(checkpoint), trust)
    samples = open_data(folder, trust)
    require_fit(samples, predictor.opened)
    fabric = make_fabric(accelerator, "32-true")
    say(f"looking at the data by {checkpoint}")
    found = _Analyser(folder, predictor, samples, fabric, limit).run(kind)
    found.about["made_of"] = made_of
    with suppress(OSError):  # a folder that cannot be written
        found.write(folder / FILE)
    return found


def open_data(folder: Path, trust: bool = False) -> DataModule:
    """Build the data of a run from its config; only classes that are ours or a plug-in's, unless it is trusted.

    Raises:
        ValueError: If the config names none, or they cannot be built.
    """
    config = read_yaml(folder / "config.yaml").get("data")
    if not isinstance(config, dict) or "class_path" not in config:
        raise ValueError(f"`{folder / 'config.yaml'}` names no data; the run was made in Python, perhaps.")
    _require_known(config, trust)
    options = Parser("ssl-lightning report", exit_on_error=False)
    options.add_subclass_arguments(DataModule, "data", required=True)
    try:
        settings = options.parse_object({"data": config})
        built: DataModule = options.instantiate_classes(settings).data
    except (Exception, SystemExit) as error:  # whatever a constructor makes of what the file says
        reason = " ".join(str(error).split())
        raise ValueError(f"the data of `{folder / 'config.yaml'}` cannot be opened: {reason}") from error
    return built


def _require_known(spec: Any, trust: bool) -> None:
    if isinstance(spec, dict):
        if "class_path" in spec:
            known_class(spec["class_path"], object, trust)
        for value in spec.values():
            _require_known(value, trust)
    elif isinstance(spec, list):
        for value in spec:
            _require_known(value, trust)


def _stamp(path: Path) -> list[Any]:
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else []


class _Analyser:
    """Looks at one run.

    Args:
        folder: Of the run.
        predictor: Its model.
        samples: Its data.
        fabric: Says the device.
        limit: Samples of a part at most.
    """

    def __init__(
        self, folder: Path, predictor: Predictor, samples: DataModule, fabric: L.Fabric, limit: int = LIMIT
    ) -> None:
        self.predictor, self.samples, self.fabric, self.limit = predictor, samples, fabric, limit
        store = folder / "labels.sqlite"
        asked = LabelStore(f"sqlite:///{store.resolve()}").queries() if store.is_file() else []
        self.queries: dict[str, Query] = {query.key: query for query in asked}
        self.is_active, self.draws = bool(asked), 0
        self.people = bool((read_yaml(folder / "config.yaml")).get("oracle"))
        names = predictor.class_names or tuple(samples.class_names)
        more = [*samples.facts["class_names"], *(query.label for query in asked if query.label)]
        self.names = list(dict.fromkeys([*names, *more]))
        self.numbers = {name: number for number, name in enumerate(self.names)}

    def run(self, kind: Map) -> Analysis:
        """Look, measure, draw."""
        columns: dict[str, list[Any]] = {name: [] for name in ("keys", "part", "target", "asked", "labelled")}
        looked, totals = [], {}
        for part in parts_of(self.samples):
            chosen = self._chosen(part)
            seen = self._look(part, chosen)
            totals[part.name] = len(part.samples)
            looked.append(seen)
            for place in seen.places:
                for name, value in self._facts(part, place).items():
                    columns[name].append(value)
        embeddings = torch.cat([seen.embeddings for seen in looked])
        if not embeddings.isfinite().all():
            raise ValueError("the model's embeddings hold NaN or infinity: the run has diverged.")
        return self._put_together(columns, looked, embeddings, totals, kind)

    def _chosen(self, part: Part) -> list[int]:
        keys = part.samples.keys
        asked = [place for place, key in enumerate(keys) if key in self.queries]
        return sorted({*evenly(keys, self.limit), *asked})

    def _facts(self, part: Part, place: int) -> dict[str, Any]:
        """Return what is known of a sample without the model."""
        key = part.samples.keys[place]
        query = self.queries.get(key)
        name, told = part.labels[place], bool(part.labels[place])
        which = part.name
        if part.name == "train":
            truth = self.samples.truth
            if not told and truth is not None and len(truth) == len(part.samples) and truth[place] >= 0:
                name = self.samples.class_names[int(truth[place])]
            if place in self._validation:
                which, told = "validation", False
        if query is not None:
            name = query.label or name
            which = {"train": which, "val": "validation"}.get(query.part, query.part)
        if part.name == "train" and self.is_active:  # what the data know, a simulated oracle hides
            told = (query is not None and query.label is not None) or (self.people and told)
        return {
            "keys": key, "part": PARTS.index(which), "target": self.numbers.get(name, -1),
            "asked": NOT_ASKED if query is None else query.round, "labelled": told and which == "train",
        }  # fmt: skip

    @property
    def _validation(self) -> set[int]:
        if not hasattr(self, "_val"):
            self._val = set(self.samples.val_indices.tolist())
        return self._val

    def _look(self, part: Part, chosen: list[int]) -> Looked:
        places = torch.tensor(chosen, dtype=torch.int64)
        some = part._replace(samples=ChosenSamples(part.samples, places, part.samples.targets[places]))
        clean = self.predictor.clean or part.clean
        done: list[int] = []
        rows: list[tuple[Tensor, ...]] = []
        with torch.inference_mode(), self.fabric.autocast():
            model = self.predictor.model.to(self.fabric.device)
            for where, batch in batches(some, BATCH):
                inputs = clean(map_tensors(lambda tensor: tensor.to(self.fabric.device), batch.input))
                rows.append(tuple(row.float().cpu() for row in self._say(model, inputs, part.name)))
                done += where
        if not done:
            raise ValueError("none of the samples can be read; see the warning above for the first reason.")
        return Looked([chosen[place] for place in done], *(torch.cat(column) for column in zip(*rows, strict=True)))

    def _say(self, model: Any, inputs: Any, part: str) -> tuple[Tensor, ...]:
        """Return embeddings, log probabilities, disagreement, own entropy and case of a batch."""
        if not self.predictor.class_names:
            embeddings = model(inputs)
            nothing = torch.full((len(embeddings),), torch.nan)
            return embeddings, embeddings.new_empty(len(embeddings), 0), nothing, nothing, torch.full_like(nothing, -1)
        embeddings = model.embed(inputs)
        said = torch.log_softmax(model(inputs).float(), dim=1)
        nothing = torch.full((len(said),), torch.nan)
        members = self._members(model, inputs) if part == "train" else None
        if members is None:
            return embeddings, said, nothing, nothing, torch.full_like(nothing, -1)
        self.draws = len(members)
        disagreement = mutual_information(members)
        own = entropy(mean_prediction(members)) - disagreement
        return embeddings, said, disagreement, own, sort_cases(members)

    def _members(self, model: Any, inputs: Any) -> Tensor | None:
        """Return log probabilities under draws of the weights: dropout masks, or all members; null without either."""
        for count in (DRAWS, None):
            with suppress(ValueError):
                return torch.log_softmax(model.sample_logits(inputs, count, 0).float(), dim=-1)
        return None

    def _put_together(
        self, columns: dict[str, list[Any]], looked: list[Looked], embeddings: Tensor, totals: dict[str, int], kind: Map
    ) -> Analysis:
        said = torch.cat([seen.log_probabilities for seen in looked])
        classifies = said.shape[1] > 0
        best = said.max(dim=1) if classifies else None
        unknown = torch.full((len(said),), torch.nan)
        predicted = best.indices if best is not None else torch.full((len(said),), -1)
        confidence = best.values.exp() if best is not None else unknown
        arrays = {name: np.array(column) for name, column in columns.items()}
        part, target = arrays["part"].astype(np.uint8), arrays["target"].astype(np.int64)
        case = torch.cat([seen.case for seen in looked]).long().numpy()
        case[(part != 0) | arrays["labelled"]] = -1
        errors = most_confident_errors(part, target, predicted.numpy(), confidence.numpy())
        neighbours, similarity, precision = nearest(embeddings, part, target, arrays["keys"])
        drawn = self._drawn(arrays)
        spot, explained = draw_map(embeddings, drawn, kind)
        disagreement, own = (
            torch.cat([getattr(seen, name) for seen in looked]).double().numpy() for name in ("disagreement", "own")
        )
        examples = clearest(case, disagreement, own)
        others = [*errors.tolist(), *neighbours.ravel().tolist(), *itertools.chain(*examples)]
        listed = list(dict.fromkeys([*drawn, *others]))
        sheet = draw_sheet(self.samples, [str(arrays["keys"][place]) for place in listed])
        cell = np.full(len(said), -1)
        cell[listed] = np.arange(len(listed))
        shares = {
            f"{name}_disagreement": float((case == number).sum() / max(1, (case >= 0).sum()))
            for number, name in enumerate(("no", "high", "data"))
        }
        about = {
            "class_names": self.names, "method": self.predictor.opened.method, "checkpoint": self.predictor.opened.path,
            "map": kind, "explained": explained, "totals": totals, "dim": embeddings.shape[1], "precision": precision,
            "draws": self.draws, "advice": advice(shares) if (case >= 0).any() else "",
            "guesses": {
                query.key: [query.guess, query.confidence] for query in self.queries.values() if query.guess is not None
            },
            "examples": examples, "cell": sheet.cell, "columns": sheet.columns, "texts": sheet.texts,
        }  # fmt: skip
        return Analysis(
            about=about,
            keys=arrays["keys"].astype(str),
            part=part,
            target=target,
            asked=arrays["asked"].astype(np.int64),
            labelled=arrays["labelled"].astype(bool),
            predicted=predicted.numpy(),
            confidence=confidence.double().numpy(),
            entropy=(entropy(said) if classifies else unknown).double().numpy(),
            spot=spot,
            cell=cell,
            case=case,
            disagreement=disagreement,
            own=own,
            errors=errors,
            neighbours=neighbours,
            similarity=similarity,
            sheet=np.frombuffer(sheet.content, dtype=np.uint8),
        )

    def _drawn(self, arrays: dict[str, Any]) -> list[int]:
        """Choose the points of the map: what was asked for, and evenly of the others."""
        asked = np.flatnonzero(arrays["asked"] != NOT_ASKED)
        others = np.flatnonzero(arrays["asked"] == NOT_ASKED)
        keys = arrays["keys"]
        first = asked[evenly(keys[asked], ASKED)]
        more = others[evenly(keys[others], DRAWN - len(first))]
        return sorted({*first.tolist(), *more.tolist()})
