"""On a device that is not the CPU: every fit and query does what it does on the CPU, and waits as seldom as it says.

The device is a stand-in (see `stand_in`): it computes as the CPU does, so that weights and picks must be equal bit for
bit, and refuses and counts what a GPU would.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import every_modality
import lightning as L
import pytest
import torch
from every_method import METHODS, PATCHES, concrete, digits_for, make
from every_strategy import STRATEGIES
from every_strategy import make as make_strategy
from stand_in import Count, Held, counted, register, strategy
from support import some
from torch.utils import _pytree as pytree

from ssl_lightning.active import PoolDataModule
from ssl_lightning.backbones import ConvNet, SpectrogramTransformer, TextTransformer, TwoStreams
from ssl_lightning.data import Digits
from ssl_lightning.evaluation import KNN, CollapseMonitor, OnlineLinearProbe
from ssl_lightning.functional import distances, scoring, selection
from ssl_lightning.functional.batch_bald import batch_bald
from ssl_lightning.functional.cover import prob_cover
from ssl_lightning.functional.kmeans import kmeans
from ssl_lightning.functional.medoids import k_medoids
from ssl_lightning.functional.tally import tally
from ssl_lightning.methods import BYOL, VIME, CausalText, SSLMethod, ViLBERT
from ssl_lightning.supervised import Classifier
from ssl_lightning.transforms.image import RandomView

FINITE = "engine/optim.py: value"  # the loss is looked at before the step spoils the weights
LIGHTLY = {  # its losses index by masks, and its queues tell where they are filled
    "SimCLR": {"methods/simclr.py: mask as index", "in autograd: mask as index"},
    "VICReg": {"methods/vicreg.py: mask as index", "in autograd: mask as index"},
    "MoCo": {"methods/moco.py: value"},
    "NNCLR": {"methods/nnclr.py: value"},
    "SwAV": {"methods/swav.py: value"},
}
OWN = {  # how many triplets, words or regions there are, and whether any guess counts
    "Triplet": {"functional/losses.py: nonzero", "methods/triplet.py: value"},
    "FreeMatch": {
        "supervised/freematch.py: value", "supervised/freematch.py: mask as index", "in autograd: mask as index",
    },
    "CausalText": {"methods/causal_text.py: mask as index", "in autograd: mask as index"},
    "ViLBERT": {"methods/vilbert.py: mask as index", "in autograd: mask as index", "networks/codebook.py: value"},
    "MaskedText": {"transforms/text/views.py: copy to the CPU", "transforms/text/masks.py: copy to the CPU"},
}  # fmt: skip
LENGTHS = {  # sequences are of many lengths, which say what is drawn and how long a view is
    "text": {"transforms/text/views.py: copy to the CPU"},
    "images with text": {"transforms/text/views.py: copy to the CPU"},
    "sound": {
        "transforms/audio/random_view.py: value", "transforms/audio/log_mel.py: value", "backbones/audio.py: nonzero",
        "backbones/patches.py: copy to the CPU", "methods/mae.py: copy to the CPU",
    },
}  # fmt: skip


# Where torch computes attention, and we sounds, on a CPU by another formula: losses are compared, which Adam makes of
# gradients next to 0 whatever it likes.
ROUNDED = {"MAE", "SimMIM", "sound", "text", "images with text"}


class Losses(L.Callback):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *args: Any) -> None:
        self.found.append(float(outputs["loss"]))


def waits_of(name: str, modality: str = "") -> set[str]:
    """Return all that a class may wait for in a step."""
    return {FINITE} | LIGHTLY.get(name, set()) | OWN.get(name, set()) | LENGTHS.get(modality, set())


@pytest.fixture(autouse=True)
def _the_same_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU views are made by compiled code, whose rounding is another."""
    monkeypatch.setattr(RandomView, "_by_kernel", RandomView._by_operations)


@pytest.fixture
def both(trainer: Any) -> Callable[..., tuple[Any, Any, set[str]]]:
    """Return a function that fits on the CPU and on the device, and tells what the steps waited for."""

    def run(
        build: Callable[[], Any], data: Callable[[], Any], steps: int = 2, rounded: bool = False, **options: Any
    ) -> Any:
        found, count, losses = [], Count(), (Losses(), Losses())
        places = {"accelerator": "cpu"}, {"accelerator": "auto", "strategy": strategy(), "devices": "auto"}
        for place, loss in zip(places, losses, strict=True):
            L.seed_everything(0, verbose=False)
            here = [*options.get("callbacks", list)(), *([count] if "strategy" in place else []), loss]
            fit = trainer(max_steps=steps, **{**options, **place, "callbacks": here})
            model = build()
            fit.fit(model, datamodule=data())
            found.append((fit, model))
        assert losses[0].found
        torch.testing.assert_close(losses[0].found, losses[1].found, rtol=2e-3 if rounded else 0, atol=0)
        weights = [model.state_dict() for _, model in found]
        for (name, one), other in zip(weights[0].items(), weights[1].values(), strict=True):
            assert rounded or torch.equal(one, other), name
        assert not any(isinstance(value, Held) for value in found[1][1].state_dict().values())  # taken back after a fit
        assert count.steps > count.warm, "no step was looked at"
        return found[0][0], found[1][0], {without_line(place) for place in count.found}

    return run


def without_line(place: str) -> str:
    """Return `file: what` of `file:line: what`."""
    where, what = place.rsplit(": ", 1)
    return f"{where.split(':')[0]}: {what}"


def test_the_stand_in_refuses_and_counts_what_a_gpu_does() -> None:
    device = register()
    x = torch.arange(6.0).view(2, 3).to(device)
    assert x.device.type == device.type
    assert (x * 2 + torch.tensor(1.0)).cpu().tolist() == [[1, 3, 5], [7, 9, 11]]  # a scalar of the CPU mixes
    with pytest.raises(RuntimeError, match="all tensors on one device"):
        x + torch.ones(2, 3)
    with pytest.raises(RuntimeError, match="all tensors on one device"):
        torch.ones(2, 3)[x.argmax(dim=1)]
    with pytest.raises(RuntimeError, match="expected a generator"):
        torch.rand(3, device=device, generator=torch.Generator())
    with counted() as found:
        x[0] + x.sum(), x.to(device), torch.zeros(3, device=device), torch.ones(3).to(device, non_blocking=True)
    assert not found
    for wait, what in {
        "value": lambda: float(x.sum()), "copy to the CPU": lambda: x.cpu(), "mask as index": lambda: x[x > 1],
        "copy to the device": lambda: torch.ones(3).to(device), "nonzero": lambda: x.nonzero(),
        "index of the CPU": lambda: x[torch.tensor([0, 1])],
    }.items():  # fmt: skip
        with counted() as found:
            what()
        assert [place.rsplit(": ", 1)[1] for place in found] == [wait]


@pytest.mark.parametrize(
    "kind", some(METHODS, "DeepCluster", "DINO", "GAN", "MAE", "MoCo", "Rotation", "SimCLR", "SwAV")
)
def test_methods(kind: type[SSLMethod], both: Any) -> None:
    *_, waits = both(
        lambda: make(kind), lambda: digits_for(kind, batch_size=32, limit=400), rounded=kind.__name__ in ROUNDED
    )
    assert waits <= waits_of(kind.__name__)
    assert FINITE in waits


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a small data set of each modality lies."""
    folder = tmp_path_factory.mktemp("modalities")
    for name in every_modality.MODALITIES:
        every_modality.write(name, folder / name)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in every_modality.MODALITIES if name != "images"])
def test_other_data(name: str, folders: Path, both: Any) -> None:
    """By a method that takes any data, by those for such data alone, and with labels."""

    def data(**options: Any) -> Any:
        return every_modality.MODALITIES[name].data(folders / name, batch_size=8, **options)

    facts = data().facts
    taken = "rows" if name == "numbers" else name
    kinds = [kind for kind in concrete(SSLMethod) if taken in kind.takes]
    assert kinds
    for kind in [BYOL, *kinds]:
        *_, waits = both(lambda kind=kind: build_for(kind, name, facts), data, rounded=name in ROUNDED)
        assert waits <= waits_of(kind.__name__, name), kind
    *_, waits = both(lambda: every_modality.classifier(name, data()), data, rounded=name in ROUNDED)
    assert waits <= waits_of("Classifier", name)


def build_for(kind: type[SSLMethod], name: str, facts: dict[str, Any]) -> SSLMethod:
    """Build a method for data of a modality."""
    backbone: Any = every_modality.MODALITIES[name].backbone(facts)
    options: dict[str, Any] = {}
    if kind is ViLBERT:
        backbone = TwoStreams(facts["vocab_size"], image_size=8, vocabulary=facts["vocabulary"], dim=8, heads=2)
        options["codes"] = 4
    if kind is CausalText:
        backbone = TextTransformer(
            facts["vocab_size"], dim=16, depth=1, heads=2, vocabulary=facts["vocabulary"], causal=True
        )
    if kind in PATCHES:
        backbone = SpectrogramTransformer(dim=16, depth=1, heads=2, sample_rate=facts["sample_rate"])
    if kind is VIME:
        options = {key: facts[key] for key in ("feature_dim", "cardinalities")}
    return kind(backbone, **options)


SUPERVISED = [Classifier, *concrete(Classifier)]  # type: ignore[type-abstract,arg-type]


@pytest.mark.parametrize("kind", SUPERVISED)
def test_classifiers(kind: Any, both: Any) -> None:
    def pool() -> Any:
        return PoolDataModule(Digits(batch_size=16, limit=300), initial=40, steps_per_epoch=9)

    *_, waits = both(lambda: kind(10, backbone=ConvNet(width=4), dropout=0.3), pool, steps=3)
    assert waits <= waits_of(kind.__name__)


def test_there_are_classifiers_and_strategies() -> None:
    assert len(SUPERVISED) > 6
    assert len(STRATEGIES) > 15


@pytest.mark.parametrize(
    "kind", some(STRATEGIES, "BADGE", "BatchBALD", "Entropy", "EPIG", "ProbCover", "TypiClust", "VAAL")
)
def test_strategies_pick_the_same(kind: Any, both: Any) -> None:
    pools = []

    def pool() -> Any:
        pools.append(PoolDataModule(Digits(batch_size=32, limit=200, val_size=0), initial=30, steps_per_epoch=2))
        return pools[-1]

    def model() -> Any:
        return Classifier(10, ConvNet(width=4), dropout=0.5)

    both(model, pool, callbacks=lambda: [make_strategy(kind, query_size=5)])
    assert pools[0].queries == pools[1].queries
    assert len(pools[0].asked(0)) == 5


def test_what_watches_a_fit_finds_the_same(both: Any) -> None:
    def watchers() -> list[L.Callback]:
        return [KNN(k=5), OnlineLinearProbe(), CollapseMonitor()]

    def data() -> Any:
        return Digits(batch_size=32, limit=200)

    one, other, _ = both(lambda: BYOL(ConvNet(width=4)), data, steps=-1, max_epochs=1, callbacks=watchers)
    assert {"val/knn_accuracy", "val/probe_accuracy", "val/rankme"} <= set(one.callback_metrics)
    assert one.callback_metrics == {name: value.cpu() for name, value in other.callback_metrics.items()}


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def rows(count: int = 40, width: int = 5) -> Any:
    return torch.randn(count, width, generator=draws())


def asked(count: int = 40) -> Any:
    return torch.arange(count) % 7 == 0


FUNCTIONS: dict[str, Callable[[Callable[[Any], Any]], Any]] = {
    **{name: lambda to, name=name: getattr(scoring, name)(to(rows().log_softmax(dim=1))) for name in (
        "least_confidence", "ratio", "informativeness", "residuals", "entropy",
    )},
    **{name: lambda to, name=name: getattr(scoring, name)(to(rows(240).view(6, 40, 5).log_softmax(dim=2))) for name in (
        "mean_prediction", "vote_entropy", "mutual_information",
    )},
    "epig": lambda to: scoring.expected_predictive_information_gain(
        to(rows(6 * 40).view(40, 6, 5).softmax(dim=2)), to(rows(6 * 10).view(10, 6, 5).softmax(dim=2))
    ),
    "top": lambda to: selection.top(to(rows()[:, 0]), to(torch.arange(40)), 5),
    "farthest_first": lambda to: selection.farthest_first(to(rows()), to(asked()), 5),
    "badge": lambda to: selection.badge(to(rows()), to(rows(40, 8)), 5, draws()),
    "dbal": lambda to: selection.dbal(to(rows()), to(rows()[:, 0].abs()), 5, draws()),
    "typiclust": lambda to: selection.typiclust(to(rows()), to(asked()), 5, draws()),
    "prob_cover": lambda to: prob_cover(to(rows()), to(asked()), 5, 1.0),
    "batch_bald": lambda to: batch_bald(
        to(rows(6 * 40).view(40, 6, 5).softmax(dim=2)), to(torch.arange(40)), 4, draws(), 100
    ),
    "k_medoids": lambda to: k_medoids(to(distances.distances(rows(), rows())), 4, draws()),
    "kmeans": lambda to: tuple(kmeans(to(rows()), 4, draws(), engine="torch")),
    "tally": lambda to: tally(to(torch.arange(9) % 4), 5),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    device = register()
    alone = FUNCTIONS[name](lambda part: part)
    there = FUNCTIONS[name](lambda part: part.to(device))
    for one, other in zip(pytree.tree_leaves(alone), pytree.tree_leaves(there), strict=True):
        assert torch.equal(one, other.cpu()) if isinstance(one, torch.Tensor) else one == other
