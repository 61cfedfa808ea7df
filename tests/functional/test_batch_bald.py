"""BatchBALD against enumeration, scikit-activeml and its own laws."""

import itertools
import math

import numpy as np
import pytest
import torch
from skactiveml.pool import batch_bald as their_batch_bald
from torch import Tensor

from ssl_lightning.functional.batch_bald import _Joint, batch_bald
from ssl_lightning.functional.scoring import mutual_information


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_up(count: int, members: int, classes: int, scale: float = 3.0, seed: int = 0) -> Tensor:
    """Return probabilities `(count, members, classes)`."""
    return (scale * torch.randn(count, members, classes, generator=generator(seed))).softmax(dim=2)


def enumerated(batch: Tensor) -> float:
    """Mutual information of a batch's joint label and the weights, over all joint labels, in float64."""
    size, members, classes = batch.shape
    joint = 0.0
    for labels in itertools.product(range(classes), repeat=size):
        likelihood = torch.ones(members, dtype=torch.float64)
        for sample, label in zip(batch.double(), labels, strict=True):
            likelihood = likelihood * sample[:, label]
        joint += float(torch.special.entr(likelihood.mean()))
    return joint - float(torch.special.entr(batch.double()).sum(dim=2).mean(dim=1).sum())


def slow(probabilities: Tensor, count: int) -> tuple[list[int], list[float]]:
    """Greedily, every candidate by enumeration each time."""
    chosen: list[int] = []
    values = [0.0]
    for _ in range(count):
        scores = [
            -math.inf if x in chosen else enumerated(probabilities[[*chosen, x]]) for x in range(len(probabilities))
        ]
        chosen.append(int(np.argmax(scores)))
        values.append(max(scores))
    return chosen, [after - before for before, after in itertools.pairwise(values)]


@pytest.mark.parametrize("seed", range(3))
def test_the_batch_is_that_of_enumeration(seed: int) -> None:
    probabilities = made_up(25, 6, 3, seed=seed)
    chosen, gains = batch_bald(probabilities, torch.arange(25), 4, generator())
    expected, expected_gains = slow(probabilities, 4)
    assert chosen.tolist() == expected
    assert gains.tolist() == pytest.approx(expected_gains, abs=1e-5)


def test_the_first_adds_its_bald_score() -> None:
    probabilities = made_up(300, 20, 10)
    bald = mutual_information(probabilities.transpose(0, 1).log())
    chosen, gains = batch_bald(probabilities, torch.arange(300), 3, generator())
    assert chosen[0] == bald.argmax()
    assert float(gains[0]) == pytest.approx(float(bald.max()), abs=1e-5)
    for x in range(300):
        alone = batch_bald(probabilities[x : x + 1], torch.tensor([0]), 1, generator())[1]
        assert float(alone) == pytest.approx(float(bald[x]), abs=1e-5)


def test_drawn_labels_estimate_the_joint_entropy() -> None:
    """With fewer configurations than joint labels, against the exact value; the error falls with their number."""
    probabilities = made_up(6, 8, 4, scale=1.5)
    value = enumerated(probabilities[:5]) - enumerated(probabilities[:4])
    own = float(torch.special.entr(probabilities[4].double()).sum(dim=1).mean())
    for configurations, tolerance in ((250, 0.06), (20_000, 0.006)):
        errors = []
        for seed in range(5):
            joint = _Joint(8, 4, configurations, generator(seed))
            for sample in probabilities[:4]:
                joint.add(sample)
            means, deviations = joint.entropies(probabilities[4:5])
            errors.append(abs(float(means[0]) - own - value))
            assert (joint.drawn is None) == (configurations >= 4**4)
            assert float(deviations[0]) < 3 * tolerance
        assert sum(errors) / 5 < tolerance


def test_the_drawn_batch_is_worth_the_exact_one() -> None:
    probabilities = made_up(60, 5, 3, seed=4)
    best, _ = batch_bald(probabilities, torch.arange(60), 6, generator())
    drawn, _ = batch_bald(probabilities, torch.arange(60), 6, generator(), configurations=200)
    assert enumerated(probabilities[drawn]) > 0.97 * enumerated(probabilities[best])


def test_it_is_scikit_activemls() -> None:
    """Both exact: its joint has at most 4 ** 4 labels, drawn from 5,000 there."""
    probabilities = made_up(120, 10, 4, seed=2)
    utilities = their_batch_bald(probabilities.double().transpose(0, 1).numpy().copy(), 4, 5000, random_state=0)
    theirs = [int(np.nanargmax(row)) for row in utilities]
    chosen, gains = batch_bald(probabilities, torch.arange(120), 4, generator())
    assert chosen.tolist() == theirs
    # theirs is the value of the whole batch
    assert gains.cumsum(0).tolist() == pytest.approx([float(np.nanmax(row)) for row in utilities], abs=1e-4)


def test_copies_are_not_asked_twice() -> None:
    """Where BALD would take ten copies of the best, BatchBALD takes none of them again."""
    groups = made_up(40, 30, 6, scale=4, seed=6)
    probabilities = groups.repeat_interleave(10, dim=0)
    bald = mutual_information(probabilities.transpose(0, 1).log())
    assert len((bald.topk(8).indices // 10).unique()) == 1
    chosen, _ = batch_bald(probabilities, torch.arange(400), 8, generator())
    assert len((chosen // 10).unique()) == 8


def test_gains_never_rise_and_stay_below_the_members() -> None:
    """Submodular, and no batch can tell more than which of the K members it is."""
    gains = batch_bald(made_up(200, 4, 10, scale=5), torch.arange(200), 12, generator())[1]
    assert (gains[1:] <= gains[:-1] + 1e-6).all()
    assert float(gains.sum()) <= math.log(4) + 1e-5


def exact(batch: Tensor) -> float:
    """What `enumerated` returns, by one array of all joint labels."""
    joint = torch.ones(1, batch.shape[1], dtype=torch.float64)
    for sample in batch.double():
        joint = (joint[:, None] * sample.T).flatten(0, 1)
    given_weights = torch.special.entr(batch.double()).sum(dim=2).mean(dim=1).sum()
    return float(torch.special.entr(joint.mean(dim=1)).sum() - given_weights)


@pytest.mark.parametrize("block", [1, 32, *(pytest.param(block, marks=pytest.mark.long) for block in (8, 100))])
def test_blocks_do_not_change_the_batch(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pick is the first that adds most, by enumeration, in 300 random pools, a third of them with copies."""
    for seed in range(block % 4, 300, 4) if block > 1 else range(0, 300, 3):
        draws = generator(seed)
        count, members, classes = (int(torch.randint(*span, (), generator=draws)) for span in ((6, 14), (2, 7), (2, 4)))
        pool = made_up(count, members, classes, seed=seed)
        if seed % 3 == 0:
            pool = pool[torch.randint(count, (count,), generator=draws)]
        monkeypatch.setattr("ssl_lightning.functional.batch_bald._BLOCK", block * classes)
        chosen, gains = (found.tolist() for found in batch_bald(pool, torch.arange(count), 5, draws))
        assert len(set(chosen)) == 5
        for size, pick in enumerate(chosen):
            before = chosen[:size]
            left = [row for row in range(count) if row not in before]
            adds = {row: exact(pool[[*before, row]]) - (exact(pool[before]) if before else 0) for row in left}
            if max(adds.values()) < 1.1e-4:
                break
            assert adds[pick] == pytest.approx(gains[size], abs=1e-5)
            assert adds[pick] >= max(adds.values()) - 5e-6
            assert all(adds[row] < adds[pick] - 1e-9 or row > pick for row in left if row != pick)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_what_is_chosen_does_not_end_the_search(seed: int) -> None:
    """Noisy rows would add again were they asked again; copies of a certain one add nothing; six others do.

    The joint labels are drawn from the third on, and the candidates looked at in three blocks.
    """
    member = torch.arange(64)

    def split(part: Tensor, strength: float, classes: int) -> Tensor:
        """Name the member's part with this strength, and any of some classes else, `(64, 100)`."""
        told = torch.zeros(64, 100)
        told[:, :classes] = (1 - strength) / classes
        told[torch.arange(64), part] += strength
        return told

    five, six = member >> 4 & 1, member >> 5
    rows = [split(member & 3, 0.6, 100), split(member >> 2 & 3, 0.6, 100)]
    rows += [split(five, 1, 2)] * 50 + [split(five, 0.6, 2)] * 60 + [split(six, 0.5, 2)] * 6
    chosen, gains = batch_bald(torch.stack(rows), torch.arange(118), 8, generator(seed))
    assert chosen.tolist() == [0, 1, 2, 112, 113, 114, 115, 116]
    expected = [exact(torch.stack([rows[112][:, :2]] * size)) for size in range(1, 6)]
    assert gains[3:].cumsum(0).tolist() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("members", "configurations"), [(7, 20), (64, 100), (1, 1), (3, 1)])
def test_every_member_draws_as_often(members: int, configurations: int) -> None:
    """Of all joint labels and of the tenth that is looked at first."""
    joint = _Joint(members, 30, configurations, generator())
    for sample in made_up(3, members, 30):
        joint.add(sample)
    assert joint.drawn is not None
    assert len(joint.drawn) >= configurations
    for labels in (joint.drawn, joint.drawn[: len(joint._some(rough=True))]):
        assert len(torch.bincount(labels, minlength=members).unique()) == 1
    assert all(found.isfinite().all() for found in joint.entropies(made_up(5, members, 30, seed=1), rough=True))


def test_certain_members_fill_up_by_bald() -> None:
    """Two members are told apart by one sample; what is left comes in the order of BALD."""
    probabilities = made_up(50, 2, 3, scale=2)
    probabilities[7] = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    bald = mutual_information(probabilities.transpose(0, 1).log())
    chosen, gains = batch_bald(probabilities, torch.arange(50), 5, generator())
    assert chosen[0] == 7
    assert chosen.tolist() == bald.argsort(descending=True)[:5].tolist()
    assert gains[1:].abs().max() < 1e-4


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="`count=3` exceeds the 2 candidates"):
        batch_bald(made_up(2, 2, 2), torch.arange(2), 3, generator())
    broken = made_up(2, 2, 2)
    broken[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="a probability is NaN"):
        batch_bald(broken, torch.arange(2), 1, generator())


def test_sharp_pools_are_searched_to_the_last_digits() -> None:
    """Where all but a few candidates add next to nothing, each pick still is one that adds most, by enumeration."""
    looked = 0
    for seed in range(60):
        pool = made_up(9, 4, 3, scale=8, seed=seed)
        pool = pool / pool.sum(dim=2, keepdim=True)
        chosen, gains = (found.tolist() for found in batch_bald(pool, torch.arange(9), 6, generator()))
        for size, pick in enumerate(chosen):
            before = chosen[:size]
            adds = [exact(pool[[*before, row]]) - (exact(pool[before]) if before else 0) for row in range(9)]
            most = max(adds[row] for row in range(9) if row not in before)
            if most < max(1.1e-5 * gains[0], 2e-6):
                break
            looked += most < 1e-4
            assert adds[pick] >= most - 1e-6
    assert looked > 5
