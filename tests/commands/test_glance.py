"""What is told before torch is imported: the same as the parser would say, and nothing that it would take."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ssl_lightning.commands import evaluate, export, init, predict, sample, start
from ssl_lightning.commands.catalogue import arguments_of, entries
from ssl_lightning.commands.glance import OPTIONS, glance
from ssl_lightning.engine.naming import arguments, import_class
from tests.commands.test_mistakes import FILES, TOLD

Command = Callable[..., tuple[int, str]]
SEEN = [
    (["fit", "--modle", "SimCLR"], "there is no option `--modle` (did you mean `--model`"),
    (["fit", "--model", "SimCRL"], "--model: there is no class `SimCRL` (did you mean `SimCLR`?); there are "),
    (["fit", "--model=SimCRL"], "--model: there is no class `SimCRL` (did you mean `SimCLR`?); there are "),
    (["active", "--strategy", "Entrpy"], "--strategy: there is no class `Entrpy` (did you mean `Entropy`"),
    (["fit", "--model", "SimCLR", "--model.temprature", "1"], "`SimCLR` has no argument `temprature` (did you mean"),
    (["fit", "--trainer.max_epoch", "3"], "there is no option `--trainer.max_epoch` (did you mean `--trainer.max_ep"),
    (["fit", "-c", "method/simcrl"], "nor a config of that name (did you mean `method/simclr`"),
    (["evaluate", "pixels", "--protocol", "knn"], "there is no option `--protocol` (did you mean `--protocols`?)"),
]


def _told(argv: list[str]) -> str:
    try:
        glance(argv)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("argv", "said"), SEEN, ids=lambda part: " ".join(part) if isinstance(part, list) else "")
def test_what_is_seen(argv: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        glance(argv)


@pytest.mark.parametrize(("argv", "said"), SEEN[:2], ids=["option", "class"])
def test_the_command_tells_it_without_torch_and_the_parser_says_the_same(
    argv: list[str], said: str, command: Command
) -> None:
    code = "import sys; from ssl_lightning.__main__ import main; print(main(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]
    assert said in done.stderr
    status, out = command(*argv)  # here torch is imported, so the parser tells it
    assert status == 2
    assert said in out


@pytest.mark.parametrize("argv", [row[0] for row in TOLD], ids=" ".join)
def test_no_other_mistake_is_told_otherwise(argv: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name).write_text(content)
    said, also = next(row[1:3] for row in TOLD if row[0] is argv)
    told = _told(argv)
    assert not told or (said in told and also in told)


@pytest.mark.parametrize("name", ["fit", "validate", "test", "active"])
def test_options_are_those_of_the_parser(name: str, command: Command) -> None:
    status, out = command(name, "--print_config")
    assert status == 0
    content = out[out.index("seed_everything") :]
    printed = yaml.safe_load(content)
    assert set(printed) == OPTIONS[name] - {"config", "help", "print_config"}
    _, told = command(name, "--help")
    defaults = dict(re.findall(r"^  --(\w+) .*\((\d+)\)$", told, re.MULTILINE))
    assert defaults
    assert {option: printed[option] for option in defaults} == {option: int(n) for option, n in defaults.items()}


@pytest.mark.parametrize("name", ["fit", "validate", "test", "active"])
def test_help_is_a_page_that_tells_every_option(name: str, command: Command) -> None:
    status, out = command(name, "--help")
    assert status == 0
    assert len(out.splitlines()) < 60
    assert max(map(len, out.splitlines())) <= 120
    told = set(re.findall(r"^  (?:-c, )?--(\w+)", out, re.MULTILINE))
    assert told == OPTIONS[name] - {"help"}
    for kind in ("data", "strategies") if name == "active" else ("data", "methods", "classifiers"):
        assert all(re.search(rf"\b{entry.name}\b", out) for entry in entries() if entry.kind == kind)
    for line in re.findall(rf"^  (ssl-lightning {name} .*)", out, re.MULTILINE):
        assert "runs/mine" in line or not _told(shlex.split(line)[1:])
    status, out = command(name, "--help", "all")
    assert status == 0
    assert "--trainer.gradient_clip_val" in out


@pytest.mark.parametrize("module", [evaluate, export, init, predict, sample, start], ids=lambda module: module.__name__)
def test_options_are_those_of_the_other_parsers(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(module, "parser"):
        options = module.parser()
    else:
        met: list[argparse.ArgumentParser] = []
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda self, given: met.append(self) or sys.exit())
        with pytest.raises(SystemExit):
            module.main(["x"])  # type: ignore[attr-defined]
        options = met[0]
    strings = [text for action in options._actions for text in action.option_strings if text.startswith("--")]
    tops = {text.removeprefix("--").partition(".")[0].rstrip("+") for text in strings}
    assert tops - {"print_config", "print_shtab"} == OPTIONS[str(getattr(module, "__name__", "")).rpartition(".")[2]]


def test_arguments_read_from_the_source_are_those_of_the_classes() -> None:
    kinds = {"methods": "methods", "classifiers": "supervised", "strategies": "active", "data": "data"}
    checked = 0
    for entry in entries():
        if entry.kind in kinds:
            kind = import_class(f"ssl_lightning.{kinds[entry.kind]}.{entry.name}")
            assert set(arguments_of(entry.name)) == set(arguments(kind)), entry.name
            checked += 1
    assert checked > 50


def test_a_command_of_each_config_is_let_through() -> None:
    configs = Path(__file__).parents[2] / "configs"
    commands = [
        line.removeprefix("# ")
        for path in configs.rglob("*.yaml")
        for line in path.read_text().splitlines()[:3]
        if line.startswith("# ssl-lightning ")
    ]
    assert len(commands) > 50
    for line in commands:
        glance(shlex.split(line)[1:])


def test_the_sweep_file_names_options_that_there_are(command: Command, tmp_path: Path) -> None:
    sweep = yaml.safe_load((Path(__file__).parents[2] / "docs" / "sweep.yaml").read_text())
    middle = {
        name: value.get("value", value.get("min")) if isinstance(value, dict) else value
        for name, value in sweep["parameters"].items()
    }
    given = [f"--{name}={value}" for name, value in middle.items()]
    argv = [part for part in sweep["command"][1:] if part != "${args}"] + given
    assert sweep["command"][0] == "ssl-lightning"
    glance(argv)
    offline = ["offline" if part == "online" else part for part in argv]
    few = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--wandb=off", "--folder", "run"]
    status, out = command(*offline, *few)
    assert status == 0, out
    assert sweep["metric"]["name"] in (tmp_path / "run" / "logs" / "version_0" / "metrics.csv").read_text()
