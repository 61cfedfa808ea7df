"""Fits and queries on a stand-in device, in a process of its own: once registered, it is there until that ends."""

import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("on_stand_in.py")


@pytest.mark.timeout(600)
def test_all_that_runs_on_a_stand_in_device(pytestconfig: pytest.Config) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", str(CASES)]
    command += ["-m", pytestconfig.option.markexpr]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:]
    assert "no tests ran" not in done.stdout
