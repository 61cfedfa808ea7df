"""What every strategy must do, over all concrete subclasses of AcquisitionStrategy."""

import inspect
import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from every_strategy import MEMBERS, STRATEGIES, make
from support import ROOT, spawn

from ssl_lightning.active import (
    BADGE,
    BALD,
    EPIG,
    AcquisitionStrategy,
    BatchBALD,
    Entropy,
    KMedoids,
    PoolDataModule,
    PowerBALD,
    Random,
    Stream,
)
from ssl_lightning.active.vaal import VAAL, VAEAndDiscriminator
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.functional.scoring import entropy, mutual_information
from ssl_lightning.labelling import Query
from ssl_lightning.supervised.classifier import Classifier

DRAWS = {Random, KMedoids, PowerBALD, BADGE, Stream}  # among equals, too
LARGE: dict[Any, dict[str, Any]] = {BatchBALD: {"configurations": 100}}  # what makes a query of the whole pool feasible


def test_there_are_strategies() -> None:
    assert {Random, Entropy, BALD} <= set(STRATEGIES)
    assert len(STRATEGIES) == 20


@pytest.fixture
def fitted(trainer: Any) -> Any:
    """Return a function that fits a small classifier with a strategy and returns trainer, model and pool."""

    def fit(
        strategy: AcquisitionStrategy, seed: int = 0, batch_size: int = 64, limit: int = 200, **options: Any
    ) -> Any:
        L.seed_everything(seed, verbose=False)
        pool = PoolDataModule(
            Digits(batch_size=batch_size, limit=limit), **{"initial": 30, "steps_per_epoch": 5, **options}
        )
        model = Classifier(10, ConvNet(width=4), dropout=0.5)
        fit = trainer(max_epochs=1, callbacks=[strategy])
        fit.fit(model, datamodule=pool)
        return fit, model, pool

    return fit


@pytest.mark.parametrize("kind", STRATEGIES)
def test_docstring_has_a_reference_and_a_config(kind: type[AcquisitionStrategy]) -> None:
    assert "Reference:" in (inspect.getdoc(kind) or "")
    path = ROOT / "configs" / "active" / f"{kind.__name__.lower()}.yaml"
    assert kind.__name__ in path.read_text().split("strategy:", 1)[1].split()


@pytest.mark.parametrize("kind", STRATEGIES)
def test_asks_for_exactly_the_query_and_nothing_known(kind: type[AcquisitionStrategy], fitted: Any) -> None:
    _, _, pool = fitted(make(kind, query_size=7))
    initial = pool.asked(-1)
    asked = pool.asked(0)
    assert len(initial) == 30
    assert len(set(asked)) == len(asked) == 7
    assert not set(asked) & set(initial)
    assert not set(asked) & set(pool.data.val_indices.tolist())
    truth, names = pool.data.train_samples.targets, pool.data.class_names
    assert all(q.label == names[truth[place]] for q, place in zip(pool.queries, pool.places, strict=True))


@pytest.mark.parametrize("kind", STRATEGIES)
def test_same_seed_same_picks(kind: type[AcquisitionStrategy], fitted: Any) -> None:
    picks = [fitted(make(kind, query_size=5), seed=seed)[2].queries for seed in (1, 1, 2)]
    assert picks[0] == picks[1] != picks[2]


@pytest.mark.parametrize("kind", STRATEGIES)
def test_any_batch_size_gives_the_same_picks(kind: type[AcquisitionStrategy], fitted: Any) -> None:
    strategy = make(kind, query_size=9)
    fit, model, pool = fitted(strategy, limit=100)
    picks = []
    for size in (1, 7, 256):
        strategy.batch_size = size
        picks.append(strategy.query(fit, model, pool)[0])
    assert picks[0] == picks[1] == picks[2]


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_pass_that_drops_what_cannot_be_chosen_gives_the_same_picks(
    kind: type[AcquisitionStrategy], fitted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = make(kind, query_size=9, **({"candidates": 30} if kind is BatchBALD else {}))
    fit, model, pool = fitted(strategy, limit=400)
    strategy.batch_size = 10
    whole = strategy.query(fit, model, pool)[0]
    monkeypatch.setattr("ssl_lightning.engine.passes.KEEP", 40)
    seen = []
    local = strategy.local
    monkeypatch.setattr(strategy, "local", lambda rows: seen.append(len(rows["index"])) or local(rows))
    assert strategy.query(fit, model, pool)[0] == whole
    if kind in (Entropy, BatchBALD):
        assert len(seen) > 5
        assert max(seen) <= 70  # twice what is kept and a batch


@pytest.mark.parametrize("kind", STRATEGIES)
@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_alone(kind: type[AcquisitionStrategy], training: bool, fitted: Any) -> None:
    strategy = make(kind, query_size=5)
    fit, model, pool = fitted(strategy)
    model.train(training)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    modes, state = [module.training for module in model.modules()], torch.get_rng_state()
    strategy.query(fit, model, pool)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", STRATEGIES)
def test_pending_samples_are_not_asked_again(kind: type[AcquisitionStrategy], fitted: Any) -> None:
    strategy = make(kind, query_size=5)
    fit, model, pool = fitted(strategy)
    pool.queries = [query._replace(label=None, kind=None) if query.round == 0 else query for query in pool.queries]
    pending = set(pool.pending.tolist())
    assert len(pending) == 5
    assert not pending & set(strategy.query(fit, model, pool)[0])


@pytest.mark.parametrize("kind", STRATEGIES)
def test_the_whole_pool_and_one_more(kind: type[AcquisitionStrategy], fitted: Any) -> None:
    if kind is Stream:
        pytest.skip("a stream lets most pass: tests/active/test_stream.py")
    size = len(fitted(make(kind, query_size=1), limit=100)[2].unlabelled) + 1
    assert len(fitted(make(kind, query_size=size, **LARGE.get(kind, {})), limit=100)[2].unlabelled) == 0
    with pytest.raises(ValueError, match=rf"`query_size={size + 1}` exceeds the {size} unlabelled samples left"):
        fitted(make(kind, query_size=size + 1), limit=100)


@pytest.mark.parametrize("kind", STRATEGIES)
def test_identical_samples_of_one_class(kind: type[AcquisitionStrategy], trainer: Any) -> None:
    data = Digits(batch_size=32, val_size=0)
    data.setup("fit")
    data.train_samples.inputs[:] = data.train_samples.inputs[:1].clone()  # type: ignore[union-attr, attr-defined]
    data.train_samples.targets[:] = 3  # type: ignore[union-attr]
    pool = PoolDataModule(data, initial=5, steps_per_epoch=3)
    trainer(max_epochs=1, callbacks=[make(kind, query_size=4)]).fit(
        Classifier(10, ConvNet(width=4), dropout=0.5), datamodule=pool
    )
    asked = pool.asked(0)
    assert len(set(asked)) == 4
    if kind not in DRAWS:  # all scores are equal: ties go by index
        unlabelled = sorted(set(range(len(data.train_indices))) - set(pool.asked(-1)))
        assert asked == unlabelled[:4]


@pytest.mark.parametrize("kind", STRATEGIES)
@pytest.mark.parametrize(("option", "value"), [("query_size", 0), ("query_size", -3), ("batch_size", 0)])
def test_bad_numbers_are_named(kind: type[AcquisitionStrategy], option: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"`{option}={value}` must be at least 1"):
        kind(**{option: value})


def test_a_second_fit_of_no_step_asks_for_nothing(fitted: Any) -> None:
    fit, model, pool = fitted(Entropy(query_size=5))
    before = list(pool.queries)
    with pytest.warns(UserWarning, match="`Entropy` asks for nothing: this fit took no step"):
        fit.fit(model, datamodule=pool)
    assert pool.queries == before


@pytest.mark.parametrize("switch", ["max_epochs", "max_steps", "limit_train_batches"])
def test_a_fit_that_trains_nothing_is_refused(switch: str, trainer: Any) -> None:
    pool = PoolDataModule(Digits(batch_size=64), steps_per_epoch=2)
    fit = trainer(**{"max_epochs": 1, switch: 0}, callbacks=[Entropy()])
    with pytest.raises(ValueError, match=rf"`trainer\.{switch}=0` trains nothing"):
        fit.fit(Classifier(10, ConvNet(width=4)), datamodule=pool)


def test_needs_a_pool(trainer: Any) -> None:
    with pytest.raises(ValueError, match=r"`Entropy` needs a pool: pass `datamodule=PoolDataModule"):
        trainer(max_steps=1, callbacks=[Entropy()]).fit(Classifier(10, ConvNet(width=4)), datamodule=Digits())


def test_bald_needs_dropout(trainer: Any) -> None:
    pool = PoolDataModule(Digits(), steps_per_epoch=2)
    with pytest.raises(ValueError, match="no dropout to draw from"):
        trainer(max_epochs=1, callbacks=[BALD()]).fit(Classifier(10, ConvNet(width=4)), datamodule=pool)


@pytest.mark.parametrize("kind", [Entropy, BALD])
def test_picks_are_those_of_brute_force(kind: type[AcquisitionStrategy], fitted: Any) -> None:
    """Scores of the whole pool in one batch, without the pass over the pool."""
    strategy = make(kind, query_size=10)
    fit, model, pool = fitted(strategy)
    picks, scores = strategy.query(fit, model, pool)
    unlabelled = pool.unlabelled
    images = model.clean(pool.data.train_samples.__getitems__(unlabelled.tolist()).input)
    model.eval()
    with torch.no_grad():
        if kind is Entropy:
            expected = entropy(model(images).log_softmax(-1))
        else:
            from ssl_lightning.engine.seeding import derive_seed

            seed = derive_seed(strategy._seed(pool), "masks")
            expected = mutual_information(model.sample_logits(images, MEMBERS, seed).log_softmax(-1))
    best = sorted(
        zip(expected.tolist(), unlabelled.tolist(), strict=True), key=lambda pair: (-round(pair[0], 6), pair[1])
    )
    assert picks == [index for _, index in best[:10]]
    assert scores == pytest.approx([score for score, _ in best[:10]], abs=1e-5)


def test_random_is_even(fitted: Any) -> None:
    """Every sample is about equally likely, over many seeds."""
    fit, model, pool = fitted(Random(query_size=10))
    pool.places = pool.data.train_indices[40:].tolist()  # 40 are left
    pool.queries = [Query(pool.keys[place], "0") for place in pool.places]
    counts = torch.zeros(40)
    for seed in range(400):
        pool.seed = seed
        picks = Random(query_size=10).query(fit, model, pool)[0]
        counts[torch.searchsorted(pool.unlabelled, torch.tensor(picks))] += 1
    # 100 expected each, standard deviation sqrt(400 * 1/4 * 3/4) = 8.7
    assert counts.min() > 65
    assert counts.max() < 135


def picks_of_all(rank: int, world: int) -> dict[str, list[int]]:
    """Fit one model in one process, then let every strategy choose on all processes, none of which knows the whole."""
    if world > 1:  # the processes are there: Lightning is to start none
        os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    L.seed_everything(4, verbose=False)
    data = Digits(batch_size=64, limit=301)  # shares of different sizes
    pool = PoolDataModule(data, initial=30, seed=4)
    model = Classifier(10, ConvNet(width=8), dropout=0.5)
    chooser = L.Trainer(
        accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto", logger=False,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    chooser.validate(model, datamodule=data, verbose=False)  # sets the processes up
    pool.trainer = data.trainer = chooser
    pool.setup("fit")
    found = {}
    for kind in STRATEGIES:
        strategy = make(kind, query_size=12)
        if isinstance(strategy, Stream):
            strategy._prepare(pool)
        if isinstance(strategy, VAAL):
            torch.manual_seed(0)
            strategy.networks = VAEAndDiscriminator(1, 8, 4, 4)
        found[kind.__name__] = strategy.query(chooser, model, pool)[0]
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.long)])
def test_any_number_of_processes_gives_the_same_picks(world: int, tmp_path: Path) -> None:
    alone = picks_of_all(0, 1)
    assert len(alone) == len(STRATEGIES)
    for found in spawn(picks_of_all, world, tmp_path):
        assert found == alone


def test_epig_tells_small_scores_apart() -> None:
    """Members that hardly differ, as of a confident model: a millionth of a nat is still information."""
    generator = torch.Generator().manual_seed(0)
    apart = 0.1 * torch.randn(200, 10, 4, generator=generator) * torch.rand(200, 1, 1, generator=generator)
    samples = (torch.randn(200, 1, 4, generator=generator) + apart).softmax(dim=-1)
    chosen = EPIG(query_size=5, targets=200).select({"index": torch.arange(200), "samples": samples}, generator)
    joint = torch.einsum("nkc,mkd->nmcd", samples.double(), samples.double()) / 10
    mean = samples.double().mean(dim=1)
    scores = (joint * (joint / (mean[:, None, :, None] * mean[None, :, None, :])).log()).sum(dim=(2, 3)).mean(dim=1)
    assert scores.max() < 1e-5
    assert chosen.tolist() == scores.topk(5).indices.tolist()


def rows_of(count: int) -> dict[str, torch.Tensor]:
    """What strategies keep of the samples of a pool, made up, by index; a fifth was asked before."""
    generator = torch.Generator().manual_seed(2)

    def probabilities(*shape: int) -> torch.Tensor:
        return (3 * torch.randn(*shape, generator=generator)).softmax(dim=-1)

    samples = probabilities(count, 8, 4)
    point = torch.randn(count, 6, generator=generator)
    guess = samples.mean(dim=1)
    return {
        "index": torch.arange(count),
        "asked": torch.arange(count) % 5 == 0,
        "point": point / point.norm(dim=1, keepdim=True),
        "embedding": point,
        "samples": samples,
        "bald": mutual_information(samples.transpose(0, 1).log()),
        "score": mutual_information(samples.transpose(0, 1).log()),
        "residual": guess - torch.nn.functional.one_hot(guess.argmax(dim=1), 4),
    }


DETERMINISTIC = [kind for kind in STRATEGIES if kind not in DRAWS and kind.__name__ not in {
    "EPIG", "DBAL", "TypiClust",  # their targets and first centroids are drawn by place
    "ByLabels",  # lets one of these query
    "ProbCover",  # counts rows: many tie, and ties go by index
}]  # fmt: skip


@pytest.mark.parametrize("kind", DETERMINISTIC)
def test_a_permutation_of_the_pool_permutes_the_picks(kind: type[AcquisitionStrategy]) -> None:
    rows = rows_of(200)
    strategy = make(kind, query_size=8)
    picks = rows["index"][strategy.select(dict(rows), torch.Generator().manual_seed(0))]
    assert len(set(picks.tolist())) == 8
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    mixed = {key: value[order] for key, value in rows.items()}
    # under their own numbers, and under new ones: nothing but the samples themselves decides
    assert torch.equal(mixed["index"][strategy.select(dict(mixed), torch.Generator().manual_seed(0))], picks)
    mixed["index"] = torch.arange(200)
    assert torch.equal(order[strategy.select(mixed, torch.Generator().manual_seed(0))], picks)
