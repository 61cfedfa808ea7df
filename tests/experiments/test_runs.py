"""Reading run folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ssl_lightning.experiments.runs import Comparison, find_runs, group_runs, read_comparison, read_run, run_folder

WriteRun = Any


def test_reads_what_the_run_wrote(tmp_path: Path, make_run: WriteRun) -> None:
    strip = np.zeros((8, 32), np.uint8)
    folder = make_run(
        tmp_path / "a", "BALD", checkpoint="runs/simclr/last.ckpt", seed=7, validation=5, images={-1: strip, 0: strip}
    )
    run = read_run(folder)
    assert (run.strategy, run.initialisation, run.seed, run.data, run.validation) == ("BALD", "SSL", 7, "Digits", 5)
    assert run.curves["test/accuracy"] == [(20, 0.5), (24, 0.6), (28, 0.7)]
    assert run.seconds == pytest.approx(4.5)
    assert [sample.position for sample in run.asked_after(-1)] == [0, 1, 2, 3]
    assert run.asked_after(-1)[0].score is None
    assert run.asked_after(0)[0].score == pytest.approx(2.26)
    assert (run.asked_after(0)[0].key, run.asked_after(0)[0].path) == ("k4", "data/k4.png")
    assert run.strip_of(-1) == folder / "queries" / "initial.png"
    assert run.strip_of(0) == folder / "queries" / "round_000.png"
    assert run.strip_of(1) is None


def test_scratch_pending_labels_and_class_names(tmp_path: Path, make_run: WriteRun) -> None:
    folder = make_run(tmp_path / "a")
    text = "round,position,key,path,class_name,score\n0,1,a/9.png,,,0.5\n0,0,a/3.png,/x/a/3.png,cat,\n"
    (folder / "queries.csv").write_text(text)
    run = read_run(folder)
    assert (run.initialisation, run.checkpoint) == ("scratch", None)
    first, second = run.asked_after(0)  # in the order of position, not of the file
    assert (first.key, first.path, first.label, first.label_text) == ("a/3.png", "/x/a/3.png", "cat", "cat")
    assert first.score is None
    assert (second.label, second.label_text, second.score) == ("", "?", 0.5)


def test_the_apostrophe_before_a_formula_is_no_letter_of_a_name(tmp_path: Path, make_run: WriteRun) -> None:
    folder = make_run(tmp_path / "a")
    (folder / "queries.csv").write_text("round,position,key,path,class_name,score\n0,0,'=a.png,'@p/=a.png,'-y,-0.5\n")
    (asked,) = read_run(folder).asked_after(0)
    assert (asked.key, asked.path, asked.label, asked.score) == ("=a.png", "@p/=a.png", "-y", -0.5)


def test_gaps_in_metrics_and_missing_queries(tmp_path: Path, make_run: WriteRun) -> None:
    folder = make_run(tmp_path / "a")
    (folder / "rounds.csv").write_text("round,labelled,test/accuracy,val/accuracy\n0,10,0.5,\n1,20,0.6,0.4\n")
    (folder / "queries.csv").unlink()
    run = read_run(folder)
    assert run.curves == {"test/accuracy": [(10, 0.5), (20, 0.6)], "val/accuracy": [(20, 0.4)]}
    assert run.asked == ()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "rounds.csv").unlink(), r"`folder=.*` holds no rounds\.csv; give the --folder of a finished"),
        (lambda f: (f / "config.yaml").unlink(), r"holds no config\.yaml"),
        (lambda f: (f / "rounds.csv").write_text("round,labelled\n"), "no finished round yet"),
        (lambda f: (f / "rounds.csv").write_text("labelled\n3\n"), "lacks the column round"),
        (lambda f: (f / "rounds.csv").write_text("round,labelled\n0,ten\n"), "line 2 of .* not a row of numbers"),
        (lambda f: (f / "rounds.csv").write_text("round,labelled\n0,10\n1"), "line 3 of .* has no labelled"),
        (lambda f: (f / "config.yaml").write_text("a: [1"), "cannot be read as YAML"),
        (lambda f: (f / "config.yaml").write_text("just text"), "holds str, not"),
        (lambda f: (f / "queries.csv").write_text("round,position,index\n0,0,4\n"), "lacks the column key"),
        (lambda f: (f / "queries.csv").write_text("round,position,key\n0,x,a\n"), r"line 2 of `.*queries\.csv`"),
    ],
)
def test_says_what_is_wrong_with_a_folder(tmp_path: Path, make_run: WriteRun, spoil: Any, message: str) -> None:
    folder = make_run(tmp_path / "a")
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        read_run(folder)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`folder=.*nowhere` does not exist"):
        find_runs(tmp_path / "nowhere")


def test_unseeded_run_has_no_seed(tmp_path: Path, make_run: WriteRun) -> None:
    assert read_run(make_run(tmp_path / "a", seed=True)).seed is None


def test_loose_runs_become_arms(tmp_path: Path, make_run: WriteRun) -> None:
    for seed in (0, 1):
        make_run(tmp_path / "x" / f"scratch{seed}", seed=seed)
        make_run(tmp_path / "x" / f"ssl{seed}", seed=seed, checkpoint="runs/simclr/last.ckpt")
    arms = group_runs(find_runs(tmp_path)).arms
    assert {name: [run.seed for run in runs] for name, runs in arms.items()} == {
        "Entropy, scratch": [0, 1],
        "Entropy, SSL": [0, 1],
    }


def test_arms_are_told_apart_by_checkpoint_and_at_last_by_folder(tmp_path: Path, make_run: WriteRun) -> None:
    one = make_run(tmp_path / "a", checkpoint="runs/simclr/last.ckpt")
    two = make_run(tmp_path / "b", checkpoint="runs/byol/last.ckpt")
    assert list(group_runs([read_run(one), read_run(two)]).arms) == ["Entropy, SSL (simclr)", "Entropy, SSL (byol)"]
    again = make_run(tmp_path / "c", checkpoint="runs/byol/last.ckpt")
    arms = group_runs([read_run(two), read_run(again)]).arms
    assert len(arms) == 2
    assert all(str(tmp_path) in name for name in arms)


def test_metric_falls_back_to_what_was_logged(tmp_path: Path, make_run: WriteRun) -> None:
    folder = make_run(tmp_path / "a")
    assert group_runs([read_run(folder)]).metric == "test/accuracy"
    (folder / "rounds.csv").write_text("round,labelled,train/loss,val/accuracy\n0,10,0.5,0.5\n")
    assert group_runs([read_run(folder)]).metric == "val/accuracy"


def test_comparison_keeps_what_is_there_and_says_what_is_not(tmp_path: Path, make_run: WriteRun) -> None:
    record = {
        "metric": "test/accuracy",
        "range": [20, 60],
        "seeds": [0, 1],
        "pairs": [["A", "B"], ["A", "C"]],
        "base": ["--config", "x.yaml"],
        "arms": {"A": ["--k", "1"], "B": [], "C": []},
    }
    (tmp_path / "comparison.yaml").write_text(yaml.safe_dump(record))
    for name, seed in (("A", 0), ("A", 1), ("B", 0)):
        make_run(run_folder(tmp_path, name, seed), seed=seed)
    comparison = read_comparison(tmp_path)
    assert {name: len(runs) for name, runs in comparison.arms.items()} == {"A": 2, "B": 1}
    assert comparison.pairs == (("A", "B"),)
    assert comparison.label_range == (20, 60)
    assert comparison.arguments["A"] == ("--config", "x.yaml", "--k", "1")
    assert [text.partition(":")[0] for text in comparison.missing] == ["B, seed 1", "C, seed 0", "C, seed 1"]


def test_help_does_not_wait_for_torch() -> None:
    code = (
        "import sys, ssl_lightning.commands.compare as compare, ssl_lightning.experiments.report as report\n"
        "print([m for m in ('torch', 'lightning', 'scipy', 'sklearn', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_texts_by_key(tmp_path: Path, make_run: WriteRun) -> None:
    folder = make_run(tmp_path / "a", texts={0: ["one", "two"]})
    assert read_run(folder).texts_of(0) == {"k4": "one", "k5": "two"}
    assert read_run(folder).texts_of(1) == {}
    (folder / "queries" / "round_000.json").write_text('["x"]')
    with pytest.raises(ValueError, match=r"round_000\.json` is no list of keys and texts .*delete it"):
        read_run(folder).texts_of(0)


def test_notebooks_show_tables_of_text(tmp_path: Path, make_run: WriteRun) -> None:
    run = read_run(make_run(tmp_path / "a", accuracy=[0.5, 0.75]))
    assert "<tr><td>20</td><td>0.5</td>" in run._repr_html_()
    shown = Comparison({"<b>one</b>": (run,)})._repr_html_()
    assert "<th>&lt;b&gt;one&lt;/b&gt;</th>" in shown
    assert "<td>75.0</td>" in shown
