"""A run of `start`, step by step: what is done is noted in the run's folder, and not done again."""

import contextlib
import hashlib
import io
import json
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ssl_lightning.commands import report
from ssl_lightning.commands.configs import find_config, read_config
from ssl_lightning.commands.look import Found, look
from ssl_lightning.commands.parsing import Parser
from ssl_lightning.commands.predict import load_predictor, run_all
from ssl_lightning.commands.predictions import write_classes
from ssl_lightning.commands.sources import parts_of
from ssl_lightning.commands.start_plan import (
    CHOICES,
    PEOPLE_TEST,
    TRIAL_SECONDS,
    TRIAL_SHARE,
    Plan,
    divide_labels,
    make_plan,
)
from ssl_lightning.commands.startup import say
from ssl_lightning.commands.steps import ACTIVE, COMMANDS, PRETRAIN, TRAIN, Steps, as_text
from ssl_lightning.data import DataModule, LabelledBy
from ssl_lightning.data.listing import printable
from ssl_lightning.engine.csv_files import replacing, write_csv
from ssl_lightning.engine.modalities import modality_of
from ssl_lightning.engine.naming import meant
from ssl_lightning.engine.passes import make_fabric
from ssl_lightning.evaluation.features_check import PRETRAINED, FeaturesCheck, check_features, features_of
from ssl_lightning.functional.intervals import wilson
from ssl_lightning.labelling import INITIAL, LabelStore

NO_MATTER = {"dry_run", "folder"}  # options that may be others when a run goes on
BATCH = 256  # samples that are predicted at once
SHOWN = 2000  # samples of a part that the report looks at


class Result(NamedTuple):
    """What a run came to.

    Attributes:
        accuracy: On what was set apart to test; null where nothing was.
        low: Lower end of its 95 % interval.
        high: Upper end.
        tested: Samples that tested.
        checkpoint: The model.
        predictions: A class for every sample.
        report: A page on the queries.
        pretrained: Whether the last training began from the pretrained weights.
    """

    accuracy: float | None
    low: float | None
    high: float | None
    tested: int
    checkpoint: Path
    predictions: Path
    report: Path
    pretrained: bool


class StartRun:
    """One run: what is done is noted in `start.json`, and is not done again.

    Args:
        source: Folder or file.
        options: Of the command, as `parser` has them.
    """

    def __init__(self, source: str, options: Any) -> None:
        self.source, self.options = source, options
        self.folder = Path(options.folder or f"runs/start-{Path(source).resolve().stem or 'data'}")
        self.state: dict[str, Any] = {"options": {}, "seconds": {}, "written": {}, "done": {}}
        self.gpu = torch.cuda.is_available()

    def prepare(self) -> None:
        """Look at the data, measure, plan, and write the configs.

        Raises:
            ValueError: If the options do not fit the data, or a run that is there.
        """
        self.found = self._look()
        self.data = self._open(self.found.data)
        self._know_options()
        self._require()
        self.steps = Steps(self.folder, self.found, len(self.data.train_indices), self.options, self.gpu)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._note()
        self.plan = self._plan()
        self._tell()
        self._write(PRETRAIN, self.steps.pretrain(self.plan))
        self._write(ACTIVE, self.steps.active(self.plan))
        if "train" not in self.state["done"] and "check" not in self.state:
            self._write(TRAIN, self.steps.train(self.plan))

    def _look(self) -> Found:
        if not self.options.config:
            return look(self.source, self.gpu)
        name = self.options.config
        data = read_config(find_config(name), name).get("data")
        if not isinstance(data, dict) or "class_path" not in data:
            raise ValueError(f"`config={name}` has no `data` with a `class_path`; see `ssl-lightning list configs`.")
        init = dict(data.get("init_args") or {})
        init |= {place: self.source for place in ("root", "path") if place in init}
        opened = self._open({"class_path": data["class_path"], "init_args": init})
        kind = modality_of(opened.facts)
        if kind not in CHOICES:
            raise ValueError(
                f"`config={name}` is of {kind or 'data of an unknown kind'}, for which `start` has no plan; it has one "
                f"for {', '.join(CHOICES)}. Use `fit` and `active`."
            )
        return Found(kind, {"class_path": data["class_path"], "init_args": init}, f"as {name} says")

    def _open(self, data: dict[str, Any]) -> DataModule:
        """Build the data, and read them once: they say what they found, and what they left out."""
        init = data["init_args"]
        if "test_size" not in init and self.options.test_size is not None:
            init["test_size"] = self.options.test_size
        init["val_size"] = 0
        reader = Parser("ssl-lightning start")
        reader.add_subclass_arguments(DataModule, "data")
        built: DataModule = reader.instantiate_classes(reader.parse_object({"data": data})).data
        built.prepare_data()
        built.setup("fit")
        built.setup("test")
        return built

    def _know_options(self) -> None:
        """Choose who answers, and compare the options with those of the folder's run."""
        data, options = self.data, self.options
        assert data.train_samples is not None
        assert data.test_samples is not None
        self.unlabelled = int((data.train_samples.targets[data.train_indices] < 0).sum())
        options.oracle = options.oracle or ("Human" if self.unlabelled else "GroundTruth")
        tests = bool((data.test_samples.targets >= 0).any())
        options.test_share = None if tests or options.oracle != "Human" else PEOPLE_TEST
        path = self.folder / "start.json"
        now = {"data": str(Path(self.source).resolve()), **vars(options)}
        now = {name: value for name, value in now.items() if name not in NO_MATTER}
        if path.is_file():
            self.state = json.loads(path.read_text(encoding="utf-8"))
            known = self.state["options"]
            changed = [name for name, value in now.items() if known.get(name) != value]
            if changed and not (self.folder / "pretrain").exists():  # nothing was done by them yet
                seconds = self.state["seconds"] if set(changed) <= {"minutes", "seed"} else {}
                self.state = {**self.state, "seconds": seconds}
                changed = []
            for name, value in now.items():
                if name in changed:
                    raise ValueError(
                        f"`{name}={value}` differs from {known.get(name)} of the run in `{self.folder}`; give the same "
                        "to go on with it, or another `--folder` for a new run."
                    )
        self.state["options"] = now

    def _require(self) -> None:
        data, options = self.data, self.options
        assert data.train_samples is not None
        names = self._named()
        known = {*names, *(options.classes or [])}
        if len(known) < 2:
            remedy = "a folder for each class" if options.oracle == "GroundTruth" else "`--classes cat,dog`"
            what = f"names the single class `{next(iter(known))}`" if known else "names no class"
            raise ValueError(f"`folder={self.source}` {what}; at least 2 are required: give {remedy}.")
        strange = [name for name in options.classes or [] if name not in names]
        if options.oracle == "GroundTruth" and names and strange:
            raise ValueError(
                f"`classes` names `{strange[0]}`{meant(strange[0], names)}, which is no class of "
                f"`folder={self.source}`, whose own labels answer; leave `classes` out."
            )
        labelled = len(data.train_indices) - self.unlabelled
        if options.oracle == "GroundTruth" and not labelled:
            raise ValueError(
                f"`oracle=GroundTruth` needs labelled data to simulate, and `folder={self.source}` has none; leave it "
                "out, and people are asked."
            )
        pool = labelled if options.oracle == "GroundTruth" else self.unlabelled
        if options.oracle == "Human" and options.test_share:
            pool = round(pool * (1 - 1.5 * options.test_share))
        if options.labels > pool:
            raise ValueError(
                f"`labels={options.labels}` exceeds the {pool} samples that can be asked for; give at most {pool}."
            )

    def _named(self) -> list[str]:
        """Return the classes that the data name."""
        unnamed = self.data.num_classes <= 1 and tuple(self.data.class_names) == ("0",)
        return [] if unnamed else list(self.data.class_names)

    def _plan(self) -> Plan:
        """Measure a step of each training, once, and divide the minutes."""
        options, choice = self.options, CHOICES[self.found.kind]
        if set(self.state["seconds"]) != {"pretrain", "train"}:
            say(f"{self.found.kind}: measuring how long a step takes here ...")
            self._measure()
        test = 0 if self.data.test_samples is None else len(self.data.test_samples)
        pool = len(self.data.train_indices)
        return make_plan(choice, options.minutes, options.labels, pool, test, self.state["seconds"])

    def _measure(self) -> None:
        """Try some steps of both trainings on the real data; labels are made up: none is looked at."""
        folder = self.folder / "trial"
        folder.mkdir(parents=True, exist_ok=True)
        keys = [self.data.train_samples.keys[place] for place in self.data.train_indices.tolist()]  # type: ignore[union-attr]
        names = sorted({*self._named(), *(self.options.classes or [])})
        some = [{"path": key, "class": names[n % len(names)]} for n, key in enumerate(keys[: self.options.labels])]
        write_csv(folder / "labels.csv", ["path", "class"], some)
        initial, query, rounds = divide_labels(self.options.labels)
        tried = Plan((1, 50), (1, 50), initial, query, rounds, {})
        seconds = min(TRIAL_SECONDS, 60 * TRIAL_SHARE * self.options.minutes)
        for name, config in (
            ("pretrain", self.steps.pretrain(tried)),
            ("train", self.steps.train(tried, pretrained=False, labels=str(folder / "labels.csv"))),
        ):
            path = folder / f"{name}.yaml"
            file = folder / f"{name}.json"
            path.write_text(as_text(folder, path.name, self.steps.trial(config, file, seconds)), encoding="utf-8")
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
                _lightning("fit", "-c", str(path))
            self.state["seconds"][name] = json.loads(file.read_text(encoding="utf-8"))
        self._note()

    def _tell(self) -> None:
        """Say what was found, and what will be done."""
        data, plan, options = self.data, self.plan, self.options
        assert data.test_samples is not None
        minutes = {name: f"{seconds / 60:.1f} min" for name, seconds in plan.seconds.items()}
        names = list(dict.fromkeys([*self._named(), *(options.classes or [])]))
        shown = ", ".join(printable(name) for name in names[:8]) + " ..." * (len(names) > 8)
        who = (
            "the folder's own labels answer: a simulation"
            if options.oracle == "GroundTruth"
            else "people answer, at a page that opens with the run"
        )
        tests = f"{len(data.test_samples)} set apart to test" if len(data.test_samples) else "none set apart to test"
        if options.test_share:
            tests = f"{100 * options.test_share:g} % of the answers only test"
        queries = f"{plan.initial} + {plan.rounds} x {plan.query_size}" if plan.rounds else f"{plan.initial}"
        say(
            f"{self.found.kind} ({self.found.note}): {len(data.train_indices)} to learn from, {self.unlabelled} of "
            f"them unlabelled, {tests}; classes: {shown}\n"
            f"1. pretrain: SimCLR, {plan.pretrain[0]} x {plan.pretrain[1]} steps, {minutes['pretrain']}\n"
            f"2. ask for {options.labels} labels ({queries}): {who}, {minutes['active']}\n"
            f"3. train: {self.steps.choice.classifier}, {plan.train[0]} x {plan.train[1]} steps, {minutes['train']}\n"
            f"4. test, predict every sample, report; all of it into {self.folder}"
        )

    def commands(self) -> list[str]:
        """Return the commands of the steps, to be given one by one."""
        lines = [f"ssl-lightning {COMMANDS[name]} -c {self.folder / name}" for name in COMMANDS]
        lines.append(f"ssl-lightning predict {self.folder / 'train'} NEW_FILES --output classes.csv")
        return [*lines, f"ssl-lightning report {self.folder / 'active'}"]

    def _write(self, name: str, config: dict[str, Any]) -> None:
        """Write a config, unless somebody has edited it."""
        path, text = self.folder / name, as_text(self.folder, name, config)
        if path.is_file() and _hash(path.read_text(encoding="utf-8")) != self.state["written"].get(name):
            say(f"{path}: edited since it was written, and kept as it is")
            return
        with replacing(path) as file:
            file.write(text)
        self.state["written"][name] = _hash(text)
        self._note()

    def _note(self) -> None:
        with replacing(self.folder / "start.json") as file:
            json.dump(self.state, file, indent=1)

    def run(self) -> Result:
        """Do what is not done yet."""
        self._step("pretrain", PRETRAIN)
        self._step("active", ACTIVE)
        self._write_labels()
        if "check" not in self.state:
            check = self._check()
            keep = check is None or check.keep
            say(f"are the pretrained features worth it? {check or 'too few labels to tell'}")
            begins = "the pretrained weights" if keep else "scratch"
            say(f"the last training begins from {begins}")
            self._write(TRAIN, self.steps.train(self.plan, pretrained=keep))
            self.state["check"] = {"said": str(check or ""), "pretrained": keep}
            self._note()
        self._step("train", TRAIN)
        return self._finish()

    def _step(self, name: str, config: str) -> None:
        """Run one step, or go on with it."""
        if name in self.state["done"]:
            say(f"{name}: done already")
            return
        say(f"\n{config}: ssl-lightning {COMMANDS[config]} -c {self.folder / config}")
        begun = time.perf_counter()
        last = self.folder / name / "checkpoints" / "last.ckpt"
        goes_on = ["--ckpt_path", str(last)] if COMMANDS[config] == "fit" and last.is_file() else []
        _lightning(COMMANDS[config], "-c", str(self.folder / config), *goes_on)
        self.state["done"][name] = round(time.perf_counter() - begun, 1)
        self._note()

    def _answers(self) -> list[dict[str, Any]]:
        """Return what is labelled: what the data said from the start, where people answer, and what was asked."""
        store = LabelStore(f"sqlite:///{(self.folder / 'active' / 'labels.sqlite').resolve()}")
        rows = []
        if self.options.oracle == "Human":
            samples = self.data.train_samples
            assert samples is not None
            known = [(samples.keys[place], int(samples.targets[place])) for place in self.data.train_indices.tolist()]
            rows = [
                {"path": key, "class": self.data.class_names[target], "part": "train", "round": INITIAL}
                for key, target in known
                if target >= 0
            ]
        return rows + [
            {"path": query.key, "class": query.label, "part": query.part, "round": query.round}
            for query in store.queries()
            if query.label is not None
        ]

    def _write_labels(self) -> None:
        rows = self._answers()
        if not rows:
            raise ValueError(
                f"`folder={self.folder}`: nothing is labelled yet; answer at the page (`ssl-lightning label "
                f"{self.folder / 'active'}`), and give the same command again."
            )
        write_csv(self.folder / "labels.csv", ["path", "class", "part", "round"], rows)

    def _check(self) -> FeaturesCheck | None:
        """Compare features by the labels of the first query: those of later ones were chosen to be hard for them."""
        from ssl_lightning.checkpoint import Checkpoint

        samples = self.data.train_samples
        assert samples is not None
        first = [row for row in self._answers() if row["round"] == INITIAL and row["part"] == "train"]
        places = {key: place for place, key in enumerate(samples.keys)}
        first = [row for row in first if row["path"] in places]
        names = sorted({row["class"] for row in first})
        where = [places[row["path"]] for row in first]
        opened = Checkpoint.open(self.steps.checkpoint)
        clean = opened.clean or self.data.clean()
        torch.manual_seed(self.options.seed)
        rows = {
            "raw": features_of(samples, where, clean),
            "untrained": features_of(samples, where, clean, opened.backbone.fresh()),
            PRETRAINED: features_of(samples, where, clean, opened.backbone),
        }
        targets = torch.tensor([names.index(row["class"]) for row in first], dtype=torch.int64)
        return check_features(rows, targets, self.options.seed)

    def _finish(self) -> Result:
        """Test, predict and report."""
        checkpoint = self.folder / "train" / "checkpoints" / "last.ckpt"
        predictor = load_predictor(str(checkpoint))
        data = LabelledBy(self.data, str(self.folder / "labels.csv"), val_size=0)
        fabric = make_fabric("gpu" if self.gpu else "cpu", "32-true")
        found = run_all(predictor, parts_of(data), BATCH, fabric)
        table = self.folder / "predictions.csv"
        write_classes(table, found.keys, found.paths, found.parts, found.rows, predictor.class_names)
        guesses = [predictor.class_names[place] for place in found.rows.argmax(dim=1).tolist()]
        right = [
            guess == label
            for guess, label, part in zip(guesses, found.labels, found.parts, strict=True)
            if part == "test" and label
        ]
        accuracy = sum(right) / len(right) if right else None
        low, high = (None, None) if accuracy is None else wilson(accuracy, len(right))
        page = self.folder / "report.html"
        kept = bool(self.state["check"]["pretrained"])
        said = "nothing was set apart to test"
        if accuracy is not None:
            said = f"test accuracy {100 * accuracy:.1f} % (95 %: {100 * low:.1f} to {100 * high:.1f}, of {len(right)})"  # type: ignore[operator]
        shown = [str(self.folder / name) for name in ("active", "train")]
        options = ["--limit", str(SHOWN), "--accelerator", "gpu" if self.gpu else "cpu"]
        report.main([*shown, "--output", str(page), "--title", f"{self.source}: {said}", *options])
        say(
            f"\n{said}, with {self.options.labels} labels\nclasses: {', '.join(predictor.class_names)}\n"
            f"model: {checkpoint}\na class for each of {len(found.keys)} samples: {table}\nreport: {page}"
        )
        return Result(accuracy, low, high, len(right), checkpoint, table, page, kept)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _lightning(*arguments: str) -> None:
    from ssl_lightning.commands import train

    train.main(list(arguments))
