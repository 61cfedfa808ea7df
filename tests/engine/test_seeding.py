"""What is drawn is a function of seeds alone."""

import pytest
import torch

from ssl_lightning.engine.seeding import base_seed, derive_seed, seed_draws


def test_a_devices_own_generator_draws_as_if_all_were_seeded() -> None:
    torch.manual_seed(derive_seed(3, "dropout", 7))
    expected = torch.nn.functional.dropout(torch.ones(50)), torch.initial_seed()
    torch.rand(5)
    seed_draws(torch.device("cpu"), 3, "dropout", 7)
    found = torch.nn.functional.dropout(torch.ones(50)), torch.initial_seed()
    assert torch.equal(found[0], expected[0])
    assert found[1] == expected[1]


def test_another_device_has_a_generator_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are seeded: what is computed on the host draws the same there."""
    seeded: list[int] = []

    class Module:
        @staticmethod
        def manual_seed(seed: int) -> None:
            seeded.append(seed)

    monkeypatch.setattr(torch, "get_device_module", lambda device: Module)
    seed_draws(torch.device("cuda", 1), 3, "dropout")
    assert seeded == [derive_seed(3, "dropout")] == [torch.initial_seed()]
    assert isinstance(base_seed(), int)
