"""Views of vectors and rows: what is replaced, by what, how often, and that the data's clean input goes before."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_lightning.transforms.base import clean_of, describe_clean, end_alike
from ssl_lightning.transforms.vectors import Row, SCARFViews, Standardise, VectorViews, VIMEViews
from ssl_lightning.transforms.vectors.corruption import exactly

VIEWS = [VectorViews, SCARFViews, VIMEViews]


def rows_of(count: int = 40) -> Row:
    """Rows whose cells are all different, so that each tells where it comes from."""
    numbers = torch.arange(count * 3.0).view(count, 3)
    return Row(numbers, 1 + torch.arange(count * 2).view(count, 2))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def leaves(views: list[Any]) -> Tensor:
    return torch.cat([part.flatten().float() for view in views for part in (view if isinstance(view, Row) else [view])])


def changed_in(clean: Any, view: Any) -> Tensor:
    if isinstance(clean, Tensor):
        return clean != view
    return torch.cat([clean.numbers != view.numbers, clean.categories != view.categories], dim=1)


@pytest.mark.parametrize("kind", VIEWS)
@pytest.mark.parametrize("inputs", [rows_of(), rows_of().numbers, Row(torch.zeros(5, 0), torch.ones(5, 2).long())])
def test_views_are_a_function_of_their_generator_alone(kind: Any, inputs: Any) -> None:
    before = torch.get_rng_state()
    one, other, third = (kind(count=2)(inputs, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(leaves(one), leaves(other))
    distinct = isinstance(inputs, Tensor) or len(inputs.numbers) > 5
    assert not distinct or not torch.equal(leaves(one), leaves(third))
    assert type(one[0]) is type(inputs)
    assert len(kind(count=3)(inputs, generator())) == 3
    assert len(kind(count=1)(inputs, generator())) == 1


@pytest.mark.parametrize(("share", "expected"), [(0.6, 3), (0.0, 0), (1.0, 5), (0.59, 2), (0.2, 1)])
def test_scarf_replaces_the_same_number_in_each_row(share: float, expected: int) -> None:
    rows = rows_of()
    clean, view = SCARFViews(share=share)(rows, generator())
    changed = changed_in(clean, view)
    assert torch.equal(clean.numbers, rows.numbers)
    assert changed.sum(dim=1).tolist() == [expected] * 40
    if 0 < share < 1:
        assert len({tuple(row) for row in changed.tolist()}) > 1, "each row has a draw of its own"
        assert changed.any(dim=0).all(), "every column, categories too"


@pytest.mark.parametrize("kind", [SCARFViews, VIMEViews])
def test_cells_come_from_other_rows_of_their_column_each_by_itself(kind: Any) -> None:
    rows = rows_of()
    clean, view = kind()(rows, generator())
    changed = changed_in(clean, view)
    donors = torch.cat([view.numbers // 3, (view.categories - 1) // 2], dim=1)
    columns = torch.cat([view.numbers % 3, (view.categories - 1) % 2], dim=1)
    assert torch.equal(columns, torch.tensor([0.0, 1, 2, 0, 1]).expand(40, 5)), "a cell stays in its column"
    own = torch.arange(40.0)[:, None].expand(40, 5)
    assert torch.equal(changed, donors != own)
    several = [len(set(row[hit].tolist())) for row, hit in zip(donors, changed, strict=True) if hit.sum() > 1]
    assert max(several) > 1, "cells of one row come from several others"
    counts = torch.zeros(40)
    for seed in range(200):
        other = kind()(rows, generator(seed))[1]
        counts += torch.bincount((other.numbers[0] // 3).long(), minlength=40)
    assert counts[1:].min() > 0, "from any other row"


def test_vime_replaces_with_its_probability() -> None:
    hits = sum(changed_in(*VIMEViews(mask=0.3)(rows_of(), generator(seed))).float().mean() for seed in range(50)) / 50
    assert float(hits) == pytest.approx(0.3, abs=0.01)


def test_exactly_is_even_over_columns() -> None:
    chosen = exactly(20_000, 5, 0.6, generator())
    assert (chosen.sum(dim=1) == 3).all()
    assert chosen.float().mean(dim=0).tolist() == pytest.approx([0.6] * 5, abs=0.02)
    pair = (chosen[:, 0] & chosen[:, 1]).float().mean()
    assert float(pair) == pytest.approx(0.3, abs=0.02), "3 of 5 without replacement: 3/5 * 2/4"


def test_a_batch_of_one_has_no_other_row() -> None:
    row = Row(torch.ones(1, 3), torch.ones(1, 2).long())
    for kind in (SCARFViews, VIMEViews):
        assert not changed_in(row, kind()(row, generator())[1]).any()
    pair = rows_of(2)
    _, view = SCARFViews(share=1.0)(pair, generator())
    assert torch.equal(view.numbers, pair.numbers.flip(0)), "of two rows, the other is the only one"


def test_vector_views_leave_out_categories_as_unknown() -> None:
    rows = rows_of(400)
    view = VectorViews(count=1, drop=0.25, noise=0.0)(rows, generator())[0]
    gone = view.categories == 0
    assert 0.2 < float(gone.float().mean()) < 0.3
    assert torch.equal(view.categories[~gone], rows.categories[~gone])
    plain = VectorViews(count=1, drop=0.25, noise=0.0)(rows.numbers, generator())[0]
    assert torch.equal(plain, view.numbers), "numbers are drawn alike with and without categories"


@pytest.mark.parametrize("kind", VIEWS)
def test_the_clean_input_of_the_data_goes_before(kind: Any) -> None:
    rows, views = rows_of(), kind(count=2)
    first = Standardise([1.0, 1.0, 1.0], [2.0, 2.0, 2.0])
    assert clean_of(views) is None
    end_alike(views, first)
    expected = kind(count=2, clean=first)(rows, generator())
    made = views(rows, generator())
    assert all(torch.equal(one.numbers, other.numbers) for one, other in zip(made, expected, strict=True))
    assert clean_of(views) is None, "other data bring another"
    end_alike(views, Standardise([0.0] * 3, [1.0] * 3, clip=1e6))
    assert not torch.equal(views(rows, generator())[0].numbers, expected[0].numbers)
    assert not list(views.parameters())
    assert not views.state_dict()


def test_standardise_is_rebuilt_from_what_a_checkpoint_keeps() -> None:
    clean = Standardise([1.0, 2.0], [3.0, 4.0])
    assert describe_clean(clean) == {
        "class_path": "ssl_lightning.transforms.vectors.Standardise",
        "init_args": {"mean": [1.0, 2.0], "std": [3.0, 4.0], "clip": 10.0},
    }
    assert not clean.state_dict()
    row = Row(torch.tensor([[4.0, 6.0]]), torch.tensor([[3]]))
    made = clean(row)
    assert made.numbers.tolist() == [[1.0, 1.0]]
    assert torch.equal(made.categories, row.categories)
    assert clean(torch.tensor([[4, 6]])).tolist() == [[1.0, 1.0]], "whole numbers"


@pytest.mark.parametrize("kind", [SCARFViews, VIMEViews])
def test_ranges(kind: Any) -> None:
    with pytest.raises(ValueError, match="must be from 0 to 1"):
        kind(2, 1.5)
    with pytest.raises(ValueError, match="must be vectors"):
        kind()(torch.zeros(2, 3, 4), generator())
