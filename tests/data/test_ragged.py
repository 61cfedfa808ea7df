"""Sequences of many lengths: padded as late as possible, and never more than they must be."""

from typing import Any

import pytest
import torch

from ssl_lightning.data import DataModule
from ssl_lightning.data.ragged import RaggedSamples
from ssl_lightning.transforms.padded import Padded, fill_up, inside, masked_mean


def ragged(rows: list[torch.Tensor]) -> RaggedSamples:
    """Put them end to end."""
    lengths = torch.tensor([len(row) for row in rows])
    return RaggedSamples(torch.cat(rows), lengths, torch.arange(len(rows)), [f"s{n}" for n in range(len(rows))])


@pytest.mark.parametrize("shape", [(), (3,)], ids=["numbers", "frames"])
def test_a_batch_is_what_filling_up_its_rows_makes(shape: tuple[int, ...]) -> None:
    rows = [torch.randn(length, *shape) for length in (1, 7, 3, 500, 2)]
    samples = ragged(rows)
    for places in ([0], [3], [2, 0, 2], [4, 1, 0, 3]):
        found, wanted = samples.__getitems__(places), fill_up([rows[place] for place in places])
        assert torch.equal(found.input.values, wanted.values)
        assert torch.equal(found.input.length, wanted.length)
        assert found.target.tolist() == found.index.tolist() == places
        assert found.input.values.shape[1] == max(len(rows[place]) for place in places)
    alone = samples[1]
    assert torch.equal(alone.input.values, rows[1])
    assert int(alone.input.length) == 7


def test_means_pass_over_what_lies_behind_the_end() -> None:
    rows = [torch.randn(length, 4) for length in (2, 9, 5)]
    batch = fill_up(rows)
    spoilt = batch.values.masked_fill(~inside(batch.length, 9)[..., None], torch.nan)
    found = masked_mean(spoilt, inside(batch.length, 9))
    assert torch.allclose(found, torch.stack([row.mean(dim=0) for row in rows]))


@pytest.mark.parametrize(
    ("lengths", "said"),
    [([2, 3], "do not fit 4 values"), ([0, 4], "lengths from 0"), ([4], "must be of one number")],
)
def test_lengths_that_do_not_fit_are_refused(lengths: list[int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RaggedSamples(torch.zeros(4), torch.tensor(lengths), torch.tensor([0, 1]), ["a", "b"])


class Lists(DataModule):
    """Sequences of many lengths."""

    num_classes = 3

    def load(self, split: str) -> Any:
        found = ragged([torch.full((length,), float(length)) for length in (3, 1, 4)])
        found.keys = [f"{split}-{key}" for key in found.keys]
        return found


def test_resident_sequences(trainer: Any) -> None:
    data = Lists(batch_size=3, val_size=0, resident=True)
    data.trainer = trainer()
    data.setup()
    (batch,) = list(data.evaluation_loader(data.train_samples, torch.arange(3)))
    assert isinstance(batch.input, Padded)
    assert batch.input.length.tolist() == [3, 1, 4]
