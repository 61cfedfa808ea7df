"""Short imports: every public name, from the package itself, and nothing imported before it is asked for."""

import subprocess
import sys
from collections import Counter
from importlib import import_module

import pytest

import ssl_lightning
from ssl_lightning.engine.naming import class_path

PARTS = ("methods", "supervised", "active", "data", "backbones", "labelling", "evaluation")


def test_every_public_name_is_that_of_its_part() -> None:
    counts: Counter[str] = Counter()
    for part in PARTS:
        module = import_module(f"ssl_lightning.{part}")
        for name in module.__all__:
            assert getattr(ssl_lightning, name) is getattr(module, name)
            counts[name] += 1
    assert counts.total() > 130
    assert max(counts.values()) == 1  # no two of one name
    assert counts.keys() < set(dir(ssl_lightning))


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, ssl_lightning; print('torch' in sys.modules, 'lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split() == ["False"] * 2


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match="`ssl_lightning` has no attribute `SimCRL`"):
        _ = ssl_lightning.SimCRL


def test_files_keep_the_path_of_the_part() -> None:
    assert class_path(ssl_lightning.SimCLR) == "ssl_lightning.methods.SimCLR"
    assert class_path(ssl_lightning.Human) == "ssl_lightning.labelling.Human"
