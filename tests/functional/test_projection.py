"""Principal components against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from ssl_lightning.functional.projection import principal


@pytest.mark.parametrize("shape", [(200, 7), (9, 40)])
def test_components_are_those_of_scikit_learn(shape: tuple[int, int]) -> None:
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.arange(1, shape[1] + 1) + 1000
    places, shares = principal(rows, 3)
    model = PCA(3, svd_solver="full").fit(rows.double().numpy())
    theirs = model.transform(rows.double().numpy())
    np.testing.assert_allclose(shares, model.explained_variance_ratio_, rtol=1e-6)
    np.testing.assert_allclose(places.abs(), np.abs(theirs), atol=1e-6 * np.abs(theirs).max())


def test_rows_that_are_all_alike_lie_on_one_place() -> None:
    places, shares = principal(torch.full((5, 3), 2.0))
    assert places.abs().max() == 0
    assert shares.abs().max() == 0
