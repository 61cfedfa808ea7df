"""The comparison: config, worker processes, resuming, failures, tables."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

import ssl_lightning.commands.compare as module
from ssl_lightning.commands.compare import CompareConfig, _alone, compare, main, read_config
from ssl_lightning.experiments.grid import Outcome, Task, run_grid
from ssl_lightning.experiments.runs import Comparison, read_run, run_folder
from ssl_lightning.experiments.tables import conclusions, table_rows, write_tables

WriteRun = Any
QUIET = Console(quiet=True)

FAKE = '''
"""Stands in for ssl_lightning.commands.train: writes the run folder of the contract, or fails as told."""
import os, subprocess, sys, time
from pathlib import Path

def main(argv):
    assert argv[0] == "active"
    options = dict(zip(argv[1::2], argv[2::2]))
    folder, seed = Path(options["--folder"]), int(options["--seed_everything"])
    print("threads", os.environ["OMP_NUM_THREADS"], "pid", os.getpid(), "gpu", os.environ.get("CUDA_VISIBLE_DEVICES"))
    subprocess.run([sys.executable, "-c", "print('from a child')"])
    how = options.get("--how", "")
    if how == f"raise{seed}":
        raise RuntimeError("NaN loss in round 3")
    if how == f"exit{seed}":
        sys.exit("bad option")
    if how == f"die{seed}":
        os._exit(9)
    if how == "die-once" and not (folder / "tried").exists():
        (folder / "tried").touch()
        os._exit(9)
    if how == "sleep":
        (folder / "pid").write_text(str(os.getpid()))
        time.sleep(120)
    if how == f"code{seed}":
        print("progress 1\\rprogress 2\\rlast words")
        return 2
    if (folder / "rounds.csv").exists():
        print("already finished")
        return 0
    gain = float(options.get("--gain", 0))
    rows = "".join(f"{r},{20 + 10 * r},0,10,1.0,{0.5 + gain + 0.1 * r + 0.01 * seed}\\n" for r in range(3))
    (folder / "rounds.csv").write_text("round,labelled,validation,queried,seconds,test/accuracy\\n" + rows)
    (folder / "config.yaml").write_text(f"seed_everything: {seed}\\nstrategy: {{class_path: a.b.Entropy}}\\n")
    return 0
'''


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A `module:function` that worker processes can import, since spawn hands sys.path on."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "fake_active.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return "fake_active:main"


def config_of(folder: Path, **changes: Any) -> CompareConfig:
    arms = {"Entropy, SSL": ("--gain", "0.2"), "Entropy, scratch": ()}
    values = {
        "folder": folder,
        "arms": arms,
        "seeds": (0, 1),
        "jobs": 2,
        "pairs": (("Entropy, SSL", "Entropy, scratch"),),
    }
    return CompareConfig(**(values | changes))


def log_of(folder: Path, arm: str, seed: int) -> str:
    return (run_folder(folder, arm, seed) / "log.txt").read_text()


def test_runs_aggregates_and_goes_on(tmp_path: Path, runner: str) -> None:
    console = Console(record=True, width=120, file=io.StringIO())
    comparison, failed = compare(config_of(tmp_path / "c"), runner, console)
    assert failed == 0
    assert {name: [run.seed for run in runs] for name, runs in comparison.arms.items()} == {
        "Entropy, SSL": [0, 1],
        "Entropy, scratch": [0, 1],
    }
    printed = console.export_text()
    assert "70.5±0.7" in printed
    assert "+20.0 points of test/accuracy, averaged over 20 to 40 labels" in printed
    first = log_of(tmp_path / "c", "Entropy, SSL", 0)
    assert "$ ssl-lightning active --gain 0.2 --seed_everything 0 --folder" in first
    assert "from a child" in first  # the descriptor is redirected, not only sys.stdout
    before = (run_folder(tmp_path / "c", "Entropy, SSL", 0) / "rounds.csv").stat().st_mtime_ns
    _, failed = compare(config_of(tmp_path / "c", seeds=(0, 1, 2)), runner, QUIET)
    assert failed == 0
    assert "already finished" in log_of(tmp_path / "c", "Entropy, SSL", 0)
    assert "already finished" not in log_of(tmp_path / "c", "Entropy, SSL", 2)
    assert (run_folder(tmp_path / "c", "Entropy, SSL", 0) / "rounds.csv").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("how", "tail"),
    [
        ("raise1", "RuntimeError: NaN loss in round 3"),
        ("exit1", "bad option"),
        ("code1", "last words"),
        ("die1", "worker process was killed"),
    ],
)
def test_a_failure_stops_nothing_else_and_is_reported(tmp_path: Path, runner: str, how: str, tail: str) -> None:
    console = Console(record=True, width=120, file=io.StringIO())
    arms = {"good": (), "bad": ("--how", how)}
    config = config_of(tmp_path / "c", arms=arms, seeds=(0, 1, 2), pairs=(("good", "bad"),))
    comparison, failed = compare(config, runner, console)
    assert failed == 1
    assert [run.seed for run in comparison.arms["bad"]] == [0, 2]
    assert len(comparison.arms["good"]) == 3
    printed = console.export_text()
    assert "bad, seed 1 failed" in printed
    assert tail in printed
    assert "progress 1" not in printed
    assert "Missing: bad, seed 1" in printed
    assert "Left out, since not finished in both: seed 1." in printed


def test_an_unknown_metric_ends_it_after_the_first_run(tmp_path: Path, runner: str) -> None:
    config = config_of(tmp_path / "c", metric="test/acuracy", jobs=1)
    with pytest.raises(
        ValueError, match=r"`metric=test/acuracy` was not logged in .* \(did you mean `test/accuracy`\?"
    ):
        compare(config, runner, QUIET)
    assert [task.folder.exists() for task in config.tasks()] == [True, False, False, False]


ENTROPY = ("-c", "experiment/digits_active")


@pytest.mark.parametrize(
    ("base", "metric", "message"),
    [
        (
            ENTROPY,
            "test/acuracy",
            r"`metric=test/acuracy` is logged by no run of the arm `A` \(did you mean `test/accuracy`",
        ),
        (ENTROPY, "labelled", "`metric=labelled` is logged by no run"),
        ((*ENTROPY, "--model", "Ensemble", "--strategy=BALD"), "val/f1", "`metric=val/f1` is logged by no run"),
        ((*ENTROPY, "--strategy", "Entropy"), "active/vaal_vae", "is logged by no run"),
    ],
)
def test_a_metric_that_classes_of_ours_do_not_log_is_refused_before_the_first_run(
    base: tuple[str, ...], metric: str, message: str, tmp_path: Path, runner: str
) -> None:
    config = CompareConfig(tmp_path / "c", {"A": ()}, base=base, metric=metric)
    with pytest.raises(ValueError, match=message):
        compare(config, runner, QUIET)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "more",
    [
        ("--trainer.callbacks+=KNN",),
        ("--trainer.callbacks", "KNN"),
        ("--model", "mine.Classifier"),
        ("--strategy", "Mine"),
        ("--model.class_path=mine.Model",),
        ("--trainer", "mine.yaml"),
        ("-c", "missing.yaml"),
        ("-c", "{folder}/callbacks.yaml"),
    ],
)
def test_of_strangers_and_callbacks_nobody_knows_what_they_log(more: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "callbacks.yaml").write_text("trainer: {callbacks+: [KNN]}")
    more = tuple(part.replace("{folder}", str(tmp_path)) for part in more)
    assert module._columns([*ENTROPY, *more]) == []
    assert module._columns(["--model", "Classifier"]) == []  # no strategy: the run will refuse it


def test_what_a_run_of_ours_logs_is_known(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> None:
    base = [*ENTROPY, "--strategy", "VAAL", "--data.val_size=0.1"]
    short = ["--rounds", "0", "--steps_per_epoch", "2", "--folder", str(tmp_path / "run")]
    status, said = command("active", *base, *short)
    assert status == 0, said
    logged = set(read_run(tmp_path / "run").curves)
    assert {"test/accuracy", "val/loss", "train/accuracy", "steps"} <= logged <= set(module._columns(base))


def test_a_worker_is_used_again_and_cores_are_shared(tmp_path: Path, runner: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    config = config_of(tmp_path / "c", seeds=(0, 1, 2), jobs=1)
    outcomes = run_grid(config.tasks(), 1, runner, QUIET)
    assert [outcome.code for outcome in outcomes] == [0] * 6
    lines = {log_of(tmp_path / "c", arm, seed).splitlines()[1] for arm in config.arms for seed in config.seeds}
    assert len(lines) == 1  # one process did all runs
    assert lines.pop().startswith("threads 8 pid")
    run_grid(config.tasks(), 2, runner, QUIET)
    assert "threads 4 pid" in log_of(tmp_path / "c", "Entropy, SSL", 0)


def test_each_worker_sees_one_gpu(tmp_path: Path, runner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7,9")
    seen = {}
    for gpus in ((0, 2), (2,)):
        config = config_of(tmp_path / str(len(gpus)), seeds=(0, 1, 2), gpus=gpus)
        assert compare(config, runner, QUIET)[1] == 0
        logs = [log_of(config.folder, arm, seed) for arm in config.arms for seed in config.seeds]
        seen[gpus] = {log.splitlines()[1].rpartition(" gpu ")[2] for log in logs}
    assert seen == {(0, 2): {"4", "9"}, (2,): {"9"}}
    with pytest.raises(ValueError, match="`gpus` names GPU 3, but `CUDA_VISIBLE_DEVICES=4,7,9` lets 3 be seen"):
        compare(config_of(tmp_path / "c", gpus=(3,)), runner, QUIET)


_PARENT = """
import signal
import sys
from pathlib import Path
from ssl_lightning.experiments.grid import Task, run_grid
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
    sys.path.insert(0, sys.argv[1])
    arguments = ("active", "--how", "sleep", "--seed_everything", "0", "--folder", sys.argv[2])
    run_grid([Task("a", arguments, Path(sys.argv[2]))], 1, "fake_active:main")
"""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for a minute in vain"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_comparison_leaves_no_run_behind(tmp_path: Path, runner: str, number: signal.Signals) -> None:
    script, folder = tmp_path / "parent.py", tmp_path / "run"
    script.write_text(_PARENT)
    root = Path(module.__file__).parents[2]
    command = [sys.executable, str(script), str(tmp_path / "modules"), str(folder)]
    parent = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(root)})
    try:
        wait_for(lambda: (folder / "pid").exists() and (folder / "pid").read_text() != "")
        worker = int((folder / "pid").read_text())
        assert is_alive(worker)
        parent.send_signal(number)
        parent.wait(60)
        wait_for(lambda: not is_alive(worker))
    finally:
        parent.kill()
        parent.wait()


def test_all_runs_failed_is_an_error(tmp_path: Path, runner: str) -> None:
    config = config_of(tmp_path / "c", arms={"bad": ("--how", "raise0")}, seeds=(0,), pairs=())
    with pytest.raises(ValueError, match="holds no finished run"):
        compare(config, runner, QUIET)


def test_other_arguments_in_the_same_folder_are_refused(tmp_path: Path, runner: str) -> None:
    compare(config_of(tmp_path / "c", seeds=(0,)), runner, QUIET)
    changed = config_of(tmp_path / "c", seeds=(0,), base=("--how", "x"))
    with pytest.raises(ValueError, match="already holds `Entropy, SSL` with other arguments"):
        compare(changed, runner, QUIET)


def test_tasks_fill_in_seed_and_folder(tmp_path: Path) -> None:
    arms = {"A (x)": ("--model.checkpoint", "runs/simclr-{seed}/last.ckpt")}
    config = CompareConfig(tmp_path, arms, seeds=(3,), base=("--config", "x.yaml"))
    (task,) = config.tasks()
    folder = tmp_path / "a-x" / "seed3"
    checkpoint = ("--model.checkpoint", "runs/simclr-3/last.ckpt")
    seeded = ("--seed_everything", "3", "--folder", str(folder), "--cache", str(tmp_path / "embeddings"))
    arguments = ("active", "--config", "x.yaml", *checkpoint, *seeded)
    assert task == Task("A (x), seed 3", arguments, folder, tmp_path.name)
    (own,) = CompareConfig(tmp_path, {"A": ("--cache", "off")}, seeds=(3,)).tasks()
    assert own.arguments.count("--cache") == 1


def test_every_arm_on_every_data_set_and_ranked(tmp_path: Path, runner: str) -> None:
    console = Console(record=True, width=160, file=io.StringIO())
    sets = {"small set": (), "large set": ("--gain", "0.1")}
    arms = {"good": ("--gain", "0.2"), "poor": ()}
    config = config_of(tmp_path / "c", arms=arms, pairs=(("good", "poor"),), data=sets, target=0.6)
    _, failed = compare(config, runner, console)
    assert failed == 0
    assert run_folder(tmp_path / "c" / "small-set", "good", 1).is_dir()
    assert (tmp_path / "c" / "large-set" / "table.md").is_file()
    printed = console.export_text()
    assert "Mean ranks over 2 data sets (small set, large set)" in printed
    assert "| good | 1.00 |" in (tmp_path / "c" / "ranks.md").read_text()
    assert "Labels to reach 60.0 % of test/accuracy: good " in printed


def test_two_comparisons_in_one_folder_are_refused(tmp_path: Path, runner: str) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with _alone(tmp_path / "c"):
            os.write(writer, b"!")
            time.sleep(60)
        os._exit(0)
    os.read(reader, 1)
    try:
        with pytest.raises(ValueError, match="another `compare` runs in `folder="):
            compare(config_of(tmp_path / "c"), runner, QUIET)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert compare(config_of(tmp_path / "c", seeds=(0,)), runner, QUIET)[1] == 0  # a killed one leaves no lock


def test_a_run_whose_process_died_once_is_begun_again(tmp_path: Path, runner: str) -> None:
    config = config_of(tmp_path / "c", arms={"frail": ("--how", "die-once")}, pairs=(), seeds=(0,))
    comparison, failed = compare(config, runner, QUIET)
    assert failed == 0
    assert len(comparison.arms["frail"]) == 1


def test_methods_are_compared_by_what_fits_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["--data", "Digits", "--data.limit", "200", "--model.backbone", "ConvNet", "--model.backbone.width", "4"]
    few = ["--trainer.max_epochs", "2", "--trainer.callbacks+=KNN", "--trainer.accelerator", "cpu"]
    console = Console(record=True, width=160, file=io.StringIO())
    config = CompareConfig(
        tmp_path / "c",
        {"SimCLR": ("--model", "SimCLR", *common, *few), "Rotation": ("--model", "Rotation", *common, *few)},
        seeds=(0,), metric="val/knn_accuracy", command="fit", pairs=(("SimCLR", "Rotation"),),
    )  # fmt: skip
    comparison, failed = compare(config, console=console)
    assert failed == 0
    assert comparison.axis == "epochs"
    assert [one.labelled for one in comparison.arms["SimCLR"][0].rounds] == [1, 2]
    printed = console.export_text()
    assert "val/knn_accuracy against epochs" in " ".join(printed.split())
    assert "averaged over 1 to 2 epochs" in printed
    before = (run_folder(tmp_path / "c", "SimCLR", 0) / "log.txt").read_text()
    assert compare(config, console=QUIET)[1] == 0  # finished, and not run again
    assert (run_folder(tmp_path / "c", "SimCLR", 0) / "log.txt").read_text() == before


GOOD = """
folder: runs/x
seeds: [0, 1]
jobs: 2
base: [--config, configs/digits.yaml]
arms:
  "A": [--strategy, Entropy, --rounds, 5, --flag, true, --path, null]
  "B": [--strategy, Random, --list, [1, 2]]
pairs: [[A, B]]
range: [20, 60]
"""


def test_config_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(GOOD)
    config = read_config(path)
    assert config.folder == Path("runs/x")
    assert config.arms["A"] == ("--strategy", "Entropy", "--rounds", "5", "--flag", "true", "--path", "null")
    assert config.arms["B"][-1] == "[1, 2]"
    assert (config.seeds, config.jobs, config.range, config.metric) == ((0, 1), 2, (20, 60), "test/accuracy")
    assert config.pairs == (("A", "B"),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": [1]}, r"unknown key `seed` \(did you mean `seeds`\?\); there are folder, arms"),
        ({"folder": None}, "lacks `folder`"),
        ({"arms": None}, "lacks `arms`"),
        ({"arms": {}}, "`arms` is empty"),
        ({"arms": ["A"]}, "`arms` must be a mapping of names"),
        ({"arms": {"A": "--x 1"}}, "`arms` must be a mapping of names"),
        ({"arms": {"A b": [], "a-B": []}, "pairs": []}, "same folder `a-b`"),
        ({"pairs": [["A", "b"]]}, r"unknown arm `b` \(did you mean `B`\?\); there are A, B"),
        ({"pairs": [["A"]]}, "`pairs` must be a list of"),
        ({"seeds": 3}, r"`seeds: 3` is not valid; `seeds` must be a list of integers"),
        ({"seeds": [1, 1]}, "must be different integers"),
        ({"seeds": []}, "must be different integers"),
        ({"seeds": [-1]}, r"`seeds=\[-1\]` must be different integers from 0 to"),
        ({"seeds": [2**32]}, "must be different integers from 0 to"),
        ({"seeds": ["a"]}, "must be a list of integers"),
        ({"jobs": 0}, "`jobs=0` must be at least 1"),
        ({"jobs": "two"}, "`jobs` must be an integer"),
        ({"gpus": [0, 0]}, r"`gpus=\[0, 0\]` must be different numbers of GPUs"),
        ({"gpus": ["cuda"]}, "`gpus` must be a list of integers"),
        ({"range": [20]}, "`range` must be"),
        ({"range": [60, 20]}, "first <= last"),
        ({"metric": 3}, "`metric` must be a metric's key"),
        ({"base": ["--folder=x"]}, "`--folder=x` is set by compare"),
    ],
)
def test_mistakes_in_the_config_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(GOOD) | change))
    with pytest.raises(ValueError, match=message):
        read_config(path)


def test_command_line(tmp_path: Path, runner: str, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(module.compare, "__defaults__", (runner, None))
    path = tmp_path / "c.yaml"
    record = {"folder": str(tmp_path / "old"), "arms": {"A": [], "B": ["--how", "code5"]}, "jobs": 1}
    path.write_text(yaml.safe_dump(record))
    folder = tmp_path / "new"
    assert main([str(path), "--seeds", "4", "--folder", str(folder)]) == 0
    written = {p.name for p in folder.iterdir()}
    assert {"summary.csv", "table.md", "table.txt", "curves.png", "curves.svg", "report.html"} <= written
    assert "Wrote summary.csv" in capsys.readouterr().out
    assert main([str(path), "--seeds", "4", "5", "--folder", str(folder), "--no-report"]) == 1
    assert not (tmp_path / "old").exists()


def test_help_gives_an_example(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    path = tmp_path / "example.yaml"
    path.write_text(textwrap.dedent(text[text.index("  folder: runs") :]))
    assert read_config(path).pairs == (("Entropy, SSL", "Entropy, scratch"),)  # the example in the help works


def test_tables(tmp_path: Path, make_run: WriteRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def arm(name: str, *accuracies: list[float]) -> tuple[Any, ...]:
        return tuple(
            read_run(make_run(tmp_path / name / str(seed), seed=seed, accuracy=accuracy))
            for seed, accuracy in enumerate(accuracies)
        )

    arms = {"A": arm("a", [0.5, 0.6, 0.7], [0.52, 0.62]), "B|C": arm("b", [0.4, 0.4, 0.4])}
    comparison = Comparison(arms, pairs=(("A", "B|C"),), label_range=(20, 24))
    header, rows = table_rows(comparison)
    assert header == ["labels", "A", "B|C"]
    assert rows == [
        ["20", "51.0 ± 1.4", "40.0"],
        ["24", "61.0 ± 1.4", "40.0"],
        ["28", "70.0 (1 of 2)", "40.0"],
        ["area 20-24", "56.0 ± 1.4", "40.0"],
        ["minutes", "0.06 ± 0.02", "0.07"],
    ]
    assert "+15.0 points" in conclusions(comparison)[1]
    write_tables(comparison, tmp_path)
    markdown = (tmp_path / "table.md").read_text().splitlines()
    assert markdown[0] == "| labels | A | B\\|C |"
    assert markdown[2] == "| 20 | 51.0 ± 1.4 | 40.0 |"
    written = (tmp_path / "table.txt").read_text()
    assert "51.0±1.4" in written
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)  # where rich shows what it prints, and writes nothing
    write_tables(comparison, tmp_path)
    assert (tmp_path / "table.txt").read_text() == written
    with (tmp_path / "summary.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["seeds"] for line in lines] == ["2", "2", "1", "1", "1", "1"]
    assert float(lines[0]["mean"]) == pytest.approx(0.51)
    assert float(lines[0]["std"]) == pytest.approx(np.std([0.5, 0.52], ddof=1), rel=1e-4)
    # t(0.975, 1) = 12.706
    assert float(lines[0]["ci95_high"]) == pytest.approx(0.51 + 12.706 * 0.01, rel=1e-4)
    assert lines[2]["std"] == lines[2]["ci95_low"] == ""


def test_log_tail_without_a_log(tmp_path: Path) -> None:
    assert Outcome(Task("a", (), tmp_path / "none"), 1, 0.0).log_tail() == "(no log)"


@pytest.mark.parametrize("name", ["experiment/digits_compare", "configs/experiment/digits_compare.yaml"])
def test_a_config_of_the_package_is_found_from_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(read_config(name).arms) == 6


def test_a_config_of_another_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a config of `active`; give `ssl-lightning active -c active/entropy`"):
        read_config("active/entropy")
    with pytest.raises(ValueError, match=r"is a config of `fit`; give `ssl-lightning fit -c method/simclr`"):
        read_config("method/simclr")
    with pytest.raises(ValueError, match=r"no such file.*did you mean `experiment/digits_compare`"):
        read_config("experiment/digit_compare")
    path = tmp_path / "tab.yaml"
    path.write_text("folder: x\n\tarms: 3\n")
    with pytest.raises(ValueError, match=r"tab\.yaml`, line 2, column 1: .*never by tabs"):
        read_config(path)
