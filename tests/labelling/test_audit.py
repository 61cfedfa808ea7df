import csv
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import cohen_kappa_score

from ssl_lightning.labelling import INITIAL, Answer, LabelStore, Query
from ssl_lightning.labelling.audit import agreement, draw, export_opinions, import_opinions, kappa, report
from ssl_lightning.labelling.shown import keep_sight


def store_of(*keys: str) -> LabelStore:
    store = LabelStore()
    store.add_round(INITIAL, "initial", 0, [Query(key) for key in keys], None)
    store.add_classes(["cat", "dog", "owl"])
    return store


def say(store: LabelStore, annotator: str, **labels: str) -> None:
    for key, label in labels.items():
        store.answer(key, label, annotator)


def test_kappa_by_hand() -> None:
    """Cohen's own example has three classes; here the standard one of two readers of 50 proposals."""
    one = ["yes"] * 25 + ["no"] * 25
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert kappa(one, other) == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    assert kappa(["a", "b"], ["b", "a"]) == -1
    assert kappa(["a", "b"], ["a", "b"]) == 1


@pytest.mark.parametrize("seed", range(8))
def test_kappa_as_scikit_learn_has_it(seed: int) -> None:
    draw = random.Random(seed)
    classes = ["a", "b", "c", "d"][: 2 + seed % 3]
    one = draw.choices(classes, k=60)
    other = [label if draw.random() < 0.5 else draw.choice(classes) for label in one]
    assert kappa(one, other) == pytest.approx(cohen_kappa_score(one, other))


def test_kappa_is_undefined_where_nothing_can_differ() -> None:
    assert kappa(["a"] * 49, ["a"] * 49) is None
    assert kappa([], []) is None
    assert kappa(["a"] * 3, ["b"] * 3) == 0  # they differ, as two who always name another class would by chance


def test_agreement_goes_by_what_each_said_last() -> None:
    store = store_of("1", "2", "3", "4", "5")
    say(store, "ann", **{"1": "cat", "2": "cat", "3": "dog", "4": "dog"})
    say(store, "bob", **{"1": "dog", "2": "cat", "3": "dog"})
    say(store, "bob", **{"1": "cat"})
    store.record([Answer("4", "owl", "bob")], audit=True)
    store.record([Answer("5", "owl", "eve")])
    (pair,) = agreement(store.history())
    assert (pair.one, pair.other, pair.samples, pair.agreement) == ("ann", "bob", 4, 0.75)
    expected = cohen_kappa_score(["cat", "cat", "dog", "dog"], ["cat", "cat", "dog", "owl"])
    assert pair.kappa == pytest.approx(expected)


def test_what_was_taken_back_does_not_count() -> None:
    store = store_of("1", "2")
    say(store, "ann", **{"1": "cat", "2": "cat"})
    store.record([Answer("2", "dog", "ann")])
    store.undo("ann")  # dog
    store.record([Answer("2", "owl", "bob")], audit=True)
    say(store, "bob", **{"1": "dog"})
    assert store.undo("bob") == "1"
    (pair,) = agreement(store.history())
    assert (pair.samples, pair.agreement) == (1, 0)  # 2: cat by ann, owl by bob
    say(store, "ann", **{"1": "dog"})
    store.record([Answer("1", None, "ann", "unsure")])
    store.record([Answer("1", "dog", "bob")], audit=True)
    assert [pair.samples for pair in agreement(store.history())] == [1]  # ann names no class for 1 any more


def test_contents_of_one_key_are_two_samples() -> None:
    store = LabelStore()
    queries = [Query("1", fingerprint="new"), Query("1", fingerprint="old")]
    store.add_round(INITIAL, "initial", 0, queries, None)
    store.record([Answer("1", "cat", "ann", fingerprint="old", new_class=True)])
    store.record([Answer("1", "cat", "bob", fingerprint="new")])
    assert agreement(store.history()) == []


def test_who_is_drawn_stays_drawn() -> None:
    keys = [f"{number}.png" for number in range(1000)]
    small, large = LabelStore(), LabelStore()
    small.add_round(INITIAL, "initial", 0, [Query(key, "cat") for key in keys[:400]], "ann")
    large.add_round(INITIAL, "initial", 0, [Query(key, "cat") for key in [*keys[::-1]]], "ann")
    first = {query.key for query in draw(small, 0.2)}
    assert first == {query.key for query in draw(large, 0.2)} & set(keys[:400])
    assert first <= {query.key for query in draw(small, 0.3)}
    assert 140 < len(draw(large, 0.2)) < 260
    assert {query.key for query in draw(large, 0.2, seed=1)} != {query.key for query in draw(large, 0.2)}
    assert len(draw(large, 1.0)) == 1000


def test_only_labels_of_others_are_drawn() -> None:
    store = store_of("1", "2", "3", "4")
    say(store, "ann", **{"1": "cat", "2": "cat"})
    store.record([Answer("3", None, "ann", "skip")])
    store.record([Answer("2", "dog", "bob")], audit=True)
    assert {query.key for query in draw(store, 1.0)} == {"1", "2"}
    assert {query.key for query in draw(store, 1.0, annotator="bob")} == {"1"}
    assert draw(store, 1.0, annotator="ann") == []


@pytest.mark.parametrize("share", [0, -0.1, 1.5, True, float("nan"), "half"])
def test_no_share(share: Any) -> None:
    with pytest.raises(ValueError, match=f"`share={share}` must be above 0 and at most 1"):
        draw(LabelStore(), share)


def fill_in(exported: Path, labels: dict[str, str]) -> Path:
    """As a person in a spreadsheet does."""
    lines = list(csv.DictReader(exported.open(newline="")))
    path = exported.with_name("filled.csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0].keys(), delimiter=";")
        writer.writeheader()
        writer.writerows({**line, "class": labels.get(line["path"], "")} for line in lines)
    return path


def test_second_opinions_go_out_and_come_back(tmp_path: Path) -> None:
    store = LabelStore()
    queries = [Query(f"=dir/{k}.png", "cat", fingerprint=f"print {k}") for k in range(4)]
    store.add_round(INITIAL, "initial", 0, queries, "ann")
    store.add_classes(["dog"])
    keep_sight(tmp_path, "=dir/0.png", "print 0", "image", b"a picture")
    path = tmp_path / "opinions.csv"
    assert export_opinions(store, path, 1.0, "bob", folder=tmp_path) == 4
    text = path.read_text()
    assert "cat" not in text  # it would be no second opinion
    assert [Path(line["shown"]).read_bytes() for line in csv.DictReader(path.open()) if line["shown"]] == [b"a picture"]
    filled = fill_in(path, {"'=dir/0.png": "cat", "'=dir/1.png": "dog", "'=dir/2.png": "Skip"})
    before = store.queries()
    assert import_opinions(store, filled, "bob") == 3
    assert store.queries() == before  # no label changed
    (pair,) = agreement(store.history())
    assert (pair.samples, pair.agreement) == (2, 0.5)
    assert import_opinions(store, filled, "bob") == 0  # again
    filled = fill_in(path, {"'=dir/1.png": "cat"})
    assert import_opinions(store, filled, "bob") == 1  # another one
    assert agreement(store.history())[0].agreement == 1
    assert export_opinions(store, path, 1.0, "bob") == 1


def test_a_table_without_fingerprints(tmp_path: Path) -> None:
    store = LabelStore()
    queries = [Query("1", "cat", fingerprint="old"), Query("1", "cat", fingerprint="new")]
    store.add_round(INITIAL, "initial", 0, queries, "ann")
    (tmp_path / "o.csv").write_text("key,label\n1,cat\n")
    assert [import_opinions(store, tmp_path / "o.csv", "bob") for _ in range(2)] == [1, 0]
    assert store.history()[-1].fingerprint == "new"  # what was asked for last


def test_a_finished_run_takes_second_opinions(tmp_path: Path) -> None:
    store = store_of("1")
    say(store, "ann", **{"1": "cat"})
    store.finish()
    (tmp_path / "o.csv").write_text("key,label\n1,dog\n")
    assert import_opinions(store, tmp_path / "o.csv", "bob") == 1


def test_a_file_with_a_mistake_changes_nothing(tmp_path: Path) -> None:
    store = store_of("1", "2")
    say(store, "ann", **{"1": "cat", "2": "cat"})
    before, path = store.history(), tmp_path / "o.csv"
    path.write_text("path,class\n1,dog\n2,cta\n")
    with pytest.raises(ValueError, match=r"o.csv`, line 3: `class=cta` is no class of this run \(did you mean `cat`"):
        import_opinions(store, path, "bob")
    path.write_text("key,label\n1,dog\n9,cat\n")
    with pytest.raises(ValueError, match="`key=9` was never asked for"):
        import_opinions(store, path, "bob")
    path.write_text("key,answer\n1,dog\n")
    with pytest.raises(ValueError, match="required are"):
        import_opinions(store, path, "bob")
    assert store.history() == before


def test_a_class_named_skip_is_a_class(tmp_path: Path) -> None:
    store = store_of("1")
    say(store, "ann", **{"1": "cat"})
    store.add_classes(["skip"])
    (tmp_path / "o.csv").write_text("key,label\n1,skip\n")
    import_opinions(store, tmp_path / "o.csv", "bob")
    assert store.history()[-1].label == "skip"


def test_report() -> None:
    store = store_of("1", "2", "3", "4")
    for key, label, took in (("1", "cat", 1000), ("2", "dog", 2000), ("3", "cat", 9000)):
        store.record([Answer(key, label, "ann", milliseconds=took)])
    store.record([Answer("4", None, "ann", "skip")])
    store.record([Answer("1", "cat", "bob"), Answer("2", "owl", "bob")], audit=True)
    say(store, "bob", **{"3": "owl"})
    say(store, "ann", **{"1": "dog"})
    store.undo("ann")
    doubts = [
        {"key": "1", "fingerprint": "", "label": "cat", "guess": "dog", "confidence": 0.914},
        {"key": "3", "fingerprint": "", "label": "cat", "guess": "owl", "confidence": 0.8},
    ]
    store.add_round(0, "Entropy", 0, [Query("7")], None, doubts=doubts)
    store.add_round(1, "Entropy", 0, [Query("8")], None)
    assert report(store) == [
        "annotators:",
        "  ann: 3 labels, 1 skipped; median 2.0 s each",
        "  bob: 1 labels, 2 second opinions",
        "agreement (Cohen's kappa: 1 for all, 0 as by chance):",
        f"  ann and bob: kappa {cohen_kappa_score(['cat', 'dog', 'cat'], ['cat', 'owl', 'owl']):.2f}; "
        "33.3% of 3 samples equal",
        "corrected: 1 of 3 labels are not those that were given first",
        "doubts: 2 labels that the model of round 0 finds likely wrong, 1 of them corrected since",
        "  1: `cat`, rather `dog` (91%)",
    ]


def test_report_of_little() -> None:
    assert report(LabelStore()) == [
        "annotators: none yet, nothing is labelled",
        "agreement: no sample has labels of two annotators",
        "corrected: 0 of 0 labels are not those that were given first",
        "doubts: none",
    ]
    store = store_of("1", "2")
    say(store, "ann", **{"1": "cat"})
    say(store, "bob", **{"1": "cat"})
    assert "  ann and bob: kappa undefined, both name one class only; 100.0% of 1 samples equal" in report(store)


def test_neither_needs_torch() -> None:
    code = (
        "import sys, ssl_lightning.labelling.audit, ssl_lightning.labelling.doubts; assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
