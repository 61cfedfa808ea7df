"""Processes that somebody else started agree on the run's folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import begin, command

from ssl_lightning.commands.launch import FOLDER, agree_on_folder

FIT = [
    "fit", "--data", "Digits", "--model", "SimCLR", "--model.backbone", "ConvNet", "--model.backbone.width", "4",
    "--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp", "--trainer.max_steps", "2",
]  # fmt: skip
LAUNCHED = ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_JOB_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE", FOLDER)


@pytest.fixture(autouse=True)
def _not_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in LAUNCHED:
        monkeypatch.delenv(key, raising=False)


def finished(folder: Path) -> bool:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    return (folder / "checkpoints" / "last.ckpt").exists() and config["trainer"]["max_steps"] == 2


@pytest.mark.long
@pytest.mark.timeout(280)
def test_torchrun_numbers_the_folder(tmp_path: Path) -> None:
    for how in (["--standalone"], ["--master_port", "29587"]):
        launch = [sys.executable, "-m", "torch.distributed.run", *how, "--nproc_per_node", "2", "-m", "ssl_lightning"]
        done = subprocess.run([*launch, *FIT], cwd=tmp_path, capture_output=True, text=True, timeout=130)
        assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["fit-001", "fit-002"]
    assert all(finished(path) for path in (tmp_path / "runs").iterdir())


@pytest.mark.timeout(200)
def test_slurm_names_the_folder_by_the_job(tmp_path: Path) -> None:
    slurm = {
        "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "localhost", "SLURM_NODELIST": "localhost",
        "SLURM_STEP_ID": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29588",
    }  # fmt: skip
    log = tmp_path / "log"
    ranks = [{"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"]
    tasks = [begin(command(*FIT), tmp_path, log, **slurm, **rank) for rank in ranks]
    for task in tasks:
        task.join(150)
    assert [task.exitcode for task in tasks] == [0, 0], log.read_text()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["fit-slurm-4711"]
    assert finished(tmp_path / "runs" / "fit-slurm-4711")


def test_a_step_of_a_job_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_STEP_ID", "3")
    assert agree_on_folder("fit", first=True) == "runs/fit-001"  # one task, as in an interactive shell
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert agree_on_folder("fit", first=True) == agree_on_folder("fit", first=False) == "runs/fit-slurm-7.3"


def test_another_launcher_is_told_to_give_a_folder(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lost = begin(command(*FIT), tmp_path, log, RANK="1", LOCAL_RANK="1", WORLD_SIZE="2")
    lost.join(100)
    assert lost.exitcode == 2
    assert "`folder` is missing: the processes of this launcher cannot agree" in log.read_text()
    assert "Traceback" not in log.read_text()
