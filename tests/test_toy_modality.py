"""A modality of a stranger's own, in 40 lines: sequences with lengths. Everything of ours runs on it, unchanged."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import lightning as L
import pytest
import torch
from support import ROOT
from torch import Tensor, nn

from ssl_lightning.active import BatchBALD, Entropy, FarthestFirst, PoolDataModule, run_rounds
from ssl_lightning.data import DataModule, TensorSamples
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.methods import SimCLR
from ssl_lightning.supervised import Classifier


# The toy begins here.
class Sequences(NamedTuple):
    """Numbers, padded to one length, and how many of them count."""

    steps: Tensor  # (N, 24)
    length: Tensor  # (N,)


class Waves(DataModule):
    """Noisy sines of three frequencies and many lengths; the class is the frequency."""

    num_classes, class_names, wave_length = 3, ("slow", "middle", "fast"), 24
    fact_names: ClassVar[tuple[str, ...]] = (*DataModule.fact_names, "wave_length")

    def load(self, split: str) -> TensorSamples:
        generator = torch.Generator().manual_seed(len(split))
        count = 240 if split == "train" else 120
        target = torch.randint(3, (count,), generator=generator)
        length = torch.randint(12, 25, (count,), generator=generator)
        phase = torch.rand(count, 1, generator=generator) * 2 * math.pi
        steps = torch.sin(phase + torch.arange(24) * (0.3 + 0.6 * target[:, None]))
        steps += 0.2 * torch.randn(count, 24, generator=generator)
        inside = torch.arange(24) < length[:, None]
        return TensorSamples(Sequences(steps * inside, length), target, [f"{split}-{place}" for place in range(count)])


class WaveViews(nn.Module):
    """Noise on every step."""

    def forward(self, inputs: Sequences, generator: torch.Generator | None = None) -> list[Sequences]:
        noise = [0.2 * torch.randn(inputs.steps.shape, generator=generator).to(inputs.steps) for _ in range(2)]
        return [inputs._replace(steps=inputs.steps + some) for some in noise]


class WaveNet(nn.Module):
    """The spectrum of a sequence, then two layers: no `Backbone`, any network will do."""

    def __init__(self, wave_length: int = 5) -> None:
        super().__init__()
        self.feature_dim = 16
        self.net = nn.Sequential(nn.Linear(wave_length // 2 + 1, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 16))

    def forward(self, inputs: Sequences) -> Tensor:
        spectrum = torch.fft.rfft(inputs.steps.float(), dim=1).abs()
        return self.net(spectrum / inputs.length[:, None].clamp(min=1))  # type: ignore[no-any-return]


# It ends here.


STRATEGIES = {
    "Entropy": lambda: Entropy(query_size=5),
    "FarthestFirst": lambda: FarthestFirst(query_size=5),
    "BatchBALD": lambda: BatchBALD(query_size=5, candidates=100),
}


def test_pretraining_and_classifier(trainer: Any, tmp_path: Path) -> None:
    data = Waves(batch_size=32)
    method = SimCLR(WaveNet(24), views=WaveViews())
    fit = trainer(max_epochs=2)
    fit.fit(method, datamodule=data)
    assert math.isfinite(float(fit.callback_metrics["train/loss"]))
    path = tmp_path / "waves.ckpt"
    fit.save_checkpoint(path)
    model = Classifier(3, WaveNet(24), checkpoint=str(path))
    judge = trainer(max_epochs=40)
    judge.fit(model, datamodule=Waves(batch_size=32))
    assert judge.test(model, datamodule=Waves(batch_size=32), verbose=False)[0]["test/accuracy"] > 0.9
    assert model.facts["class_names"] == ("slow", "middle", "fast")


@pytest.mark.parametrize("name", STRATEGIES)
def test_active(name: str, trainer: Any, tmp_path: Path) -> None:
    L.seed_everything(0, verbose=False)
    rows = run_rounds(
        make_model=lambda: Classifier(3, WaveNet(24), dropout=0.3, optimizer=OptimizerSpec(lr=0.01)),
        make_trainer=lambda callbacks: trainer(max_epochs=1, callbacks=callbacks),
        pool=PoolDataModule(Waves(batch_size=32), initial=6, steps_per_epoch=150),
        strategy=STRATEGIES[name](),
        rounds=2,
        folder=tmp_path / "run",
    )
    assert [row["labelled"] for row in rows] == [6, 11, 16]
    assert rows[-1]["test/accuracy"] > 0.7
    shown = json.loads((tmp_path / "run" / "queries" / "round_000.json").read_text())
    assert len(shown) == 5
    assert all(item["key"].startswith("train-") and "Sequences" in item["text"] for item in shown)


def test_raw_inputs_without_a_distance_say_so(trainer: Any) -> None:
    strategy = FarthestFirst(query_size=5, space="input")
    with pytest.raises(ValueError, match=r"`space=input` needs inputs that are one tensor .* these are Sequences"):
        trainer(max_epochs=1, callbacks=[strategy]).fit(
            Classifier(3, WaveNet(24)), datamodule=PoolDataModule(Waves(batch_size=32), initial=6, steps_per_epoch=2)
        )


TRAINER = ["--trainer.accelerator", "cpu", "--data.batch_size", "16", "--trainer.max_epochs", "1"]
# `AnyModule`, to which the fact `wave_length` is linked by name
BACKBONE = ["--model.backbone", "AnyModule", "--model.backbone.module", "waves.WaveNet"]
ROUNDS = [
    "active", "--data", "waves.Waves", "--model", "Classifier", *BACKBONE, "--model.dropout", "0.3", *TRAINER,
    "--steps_per_epoch", "60", "--strategy", "Entropy", "--strategy.query_size", "5", "--initial", "6",
    "--rounds", "1", "--folder", "active",
]  # fmt: skip


def asked(folder: Path) -> list[str]:
    """Return the keys that a run asked for."""
    with (folder / "active" / "queries.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 11
    assert {row["class_name"] for row in rows} <= {"slow", "middle", "fast"}
    return [row["key"] for row in rows]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_of_two_processes_from_a_strangers_folder(tmp_path: Path) -> None:
    (tmp_path / "waves.py").write_text(_toy())
    command = [sys.executable, "-m", "ssl_lightning", *ROUNDS, "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert asked(tmp_path)


def test_every_command(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Report and predict show keys."""
    (tmp_path / "waves.py").write_text(_toy())
    monkeypatch.syspath_prepend(tmp_path)
    for arguments in (
        ["fit", "--data", "waves.Waves", "--model", "SimCLR", "--model.views", "waves.WaveViews", *BACKBONE, *TRAINER,
         "--trainer.devices", "1", "--folder", "ssl"],
        [*ROUNDS, "--trainer.devices", "1"],
        ["report", "active"],
        ["evaluate", "ssl/checkpoints/last.ckpt", "--trust", "--data", "waves.Waves", "--protocols", "knn,linear,rank",
         "--fractions", "1.0"],
        ["predict", "active/checkpoints/round_001.ckpt", "--trust", "--data", "waves.Waves"],
    ):  # fmt: skip
        status, said = command(*arguments)
        assert status == 0, said
    assert asked(tmp_path)[0] in (tmp_path / "active" / "report.html").read_text()
    with (tmp_path / "active" / "predictions.csv").open() as file:
        found = list(csv.DictReader(file))
    assert len(found) == 360
    assert found[0]["class"] in ("slow", "middle", "fast")
    assert 0 < float(found[0]["probability"]) <= 1


def _toy() -> str:
    """The toy of this file as a module of its own."""
    text = Path(__file__).read_text()
    toy = text[text.index("# The toy begins here.") : text.index("# It ends here.")]
    assert len([line for line in toy.splitlines() if line.strip()]) < 50
    return (
        "import math\nfrom typing import ClassVar, NamedTuple\n\nimport torch\nfrom torch import Tensor, nn\n\n"
        "from ssl_lightning.data import DataModule, TensorSamples\n\n\n" + toy
    )


def test_pool_rounds_and_their_rooms_do_not_speak_of_images() -> None:
    """A search for "image" in the rooms that must not know the modality finds nothing that is not about images."""
    rooms = ["active", "labelling", "engine", "supervised", "checkpoint.py"]
    allowed = {
        "engine/modalities.py",  # names them
        "active/vaal.py",  # its networks are of images
        "active/record.py",  # strips of pictures, where data show pictures
        "engine/loggers.py",  # what is given to loggers that take pictures
        *(
            f"labelling/{name}.py" for name in ("shown", "label_studio", "page/server", "page/desk", "page/sights")
        ),  # by kind
    }
    for room in rooms:
        path = ROOT / "ssl_lightning" / room
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            if str(file.relative_to(ROOT / "ssl_lightning")) in allowed:
                continue
            for number, line in enumerate(file.read_text().splitlines(), 1):
                cited = "Image Data" in line or "Image Classification" in line or line.endswith("in Image")  # titles
                assert "image" not in line.lower() or cited, f"{file}:{number}: {line.strip()}"
