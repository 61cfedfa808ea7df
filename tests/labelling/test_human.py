"""The page that a run opens beside itself."""

import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from ssl_lightning.data import Digits
from ssl_lightning.labelling import INITIAL, Human, LabelStore, Query


def status(url: str | None) -> int:
    try:
        with urllib.request.build_opener(urllib.request.HTTPCookieProcessor()).open(str(url), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def test_the_page_lives_with_the_run_and_is_started_again(tmp_path: Path) -> None:
    store = LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}")
    store.add_round(INITIAL, "initial", 0, [Query("1")], None)
    human = Human(port=0)
    human.open(tmp_path, store.url)
    try:
        first = human.address
        assert status(first) == 200
        assert human._process is not None
        os.kill(human._process.pid, signal.SIGKILL)
        human._process.wait()
        assert status(first) == 0
        with pytest.warns(UserWarning, match="page had died and was started again: http"):
            human.collect([], Digits())
        assert human.address != first
        assert status(human.address) == 200
    finally:
        human.close()
    for _ in range(50):
        if not status(human.address):
            break
        time.sleep(0.1)
    assert status(human.address) == 0
    assert not (tmp_path / "page.json").exists()


def test_a_page_that_does_not_start_is_told(tmp_path: Path) -> None:
    store = LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}")
    with pytest.raises(ValueError, match=r"the labelling page at `host=192.0.2.1`, `port=8765` does not start: .*"):
        Human(host="192.0.2.1").open(tmp_path, store.url)


def test_without_a_page_the_command_is_told(tmp_path: Path) -> None:
    human = Human(page=False)
    human.open(tmp_path, "sqlite://")
    assert human.address == f"`ssl-lightning label {tmp_path}`"
    assert human.collect([], Digits()) == []
