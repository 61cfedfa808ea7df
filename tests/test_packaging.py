"""What is in the wheel, and that what it holds is found where it is installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from support import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy, so that nothing is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    names = ["pyproject.toml", "README.md", "LICENSE", "ssl_lightning", "configs"]
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in names), str(source)], check=True)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(out)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def test_every_package_is_named() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "ssl_lightning").rglob("__init__.py")}
    assert set(named) == found | {"ssl_lightning.configs"}
    assert len(set(named)) == len(named)


def test_wheel_holds_code_template_and_configs(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "ssl_lightning").rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in inside
    configs = [path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")]
    assert len(configs) > 40
    assert {f"ssl_lightning/{path}" for path in configs} <= inside
    assert {"ssl_lightning/py.typed", "ssl_lightning/experiments/report.html.jinja"} <= inside
    static = [path.relative_to(ROOT).as_posix() for path in (ROOT / "ssl_lightning/labelling/page/static").iterdir()]
    assert len(static) > 5
    assert set(static) <= inside
    outside = {name.partition("/")[0] for name in inside}
    assert {name for name in outside if not name.endswith(".dist-info")} == {"ssl_lightning"}


def test_an_installed_wheel_finds_its_configs(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "from ssl_lightning.commands.configs import config_names, find_config\n"
        "print(len(config_names()), find_config('method/simclr'))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    count, path = done.stdout.split()
    assert int(count) == len(list((ROOT / "configs").rglob("*.yaml")))
    assert Path(path) == tmp_path / "site" / "ssl_lightning" / "configs" / "method" / "simclr.yaml"


def test_top_level_is_what_was_agreed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no checkout")
    top = {name.partition("/")[0] for name in listed.stdout.splitlines()}
    allowed = {"pyproject.toml", "README.md", "ssl_lightning", "configs", "tests", "scripts", "docs"}
    others = {"LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt"}
    assert {name for name in top if not name.startswith(".")} <= allowed | others
