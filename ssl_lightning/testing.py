"""Checks that a stranger's method, strategy, encoder or data keep our contracts: to be called from tests of their own.

Each check raises an `AssertionError` that says what is wrong, and takes seconds on a CPU:

    from ssl_lightning.testing import check_strategy

    def test_my_strategy():
        check_strategy(lambda: MyStrategy(query_size=5))
"""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.utils import _pytree as pytree

from ssl_lightning.active import AcquisitionStrategy, PoolDataModule
from ssl_lightning.backbones import AnyModule, Backbone, ConvNet
from ssl_lightning.checkpoint import Checkpoint
from ssl_lightning.data import Batch, DataModule, Digits
from ssl_lightning.methods import SSLMethod
from ssl_lightning.supervised import Classifier


def _trainer(**options: Any) -> L.Trainer:
    quiet: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
    }  # fmt: skip
    return L.Trainer(**{**quiet, **options})


def _data(make: Callable[[], DataModule] | None) -> DataModule:
    return Digits(batch_size=32, limit=300) if make is None else make()


def check_method(make: Callable[[], SSLMethod], data: Callable[[], DataModule] | None = None, steps: int = 3) -> None:
    """Check a self-supervised method: it trains, needs no labels, repeats by its seed, and its encoder can be opened.

    Args:
        make: Builds the method, afresh at each call.
        data: Builds what it learns from; null for the bundled digits.
        steps: Of training.

    Raises:
        AssertionError: If one of these does not hold.
    """
    weights = []
    for _ in range(2):
        L.seed_everything(0, verbose=False)
        method, module = make(), _data(data)
        assert isinstance(method, SSLMethod), f"{type(method).__name__} is no SSLMethod"
        module.setup("fit")
        assert module.train_samples is not None
        module.train_samples.targets[:] = -1  # nothing may hang on labels
        before = copy.deepcopy(method.state_dict())
        trainer = _trainer(max_steps=steps, limit_val_batches=1)
        trainer.fit(method, datamodule=module)
        assert trainer.global_step == steps, f"took {trainer.global_step} of {steps} steps"
        loss = trainer.callback_metrics["train/loss"]
        assert torch.isfinite(loss), f"the loss is {loss}"
        moved = [key for key, value in method.state_dict().items() if not torch.equal(value, before[key])]
        assert any(key.startswith("backbone.") for key in moved), "no weight of the backbone has moved"
        weights.append(method.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0]), "the same seed gives other weights"
    method.eval()
    batch = next(iter(module.evaluation_loader(module.train_samples, torch.arange(6))))
    with torch.no_grad():
        rows = method.embed(method.prepare(batch))
    assert rows.shape == (6, method.backbone.feature_dim), f"embeddings of shape {tuple(rows.shape)}"
    with tempfile.TemporaryDirectory() as folder:
        trainer.save_checkpoint(Path(folder) / "method.ckpt")
        opened = Checkpoint.open(Path(folder) / "method.ckpt", backbone=copy.deepcopy(method.backbone))
        assert opened.method == type(method).__name__
        assert opened.facts["class_names"], "the checkpoint does not keep the classes' names"


def check_strategy(
    make: Callable[[], AcquisitionStrategy],
    data: Callable[[], DataModule] | None = None,
    model: Callable[[int], L.LightningModule] | None = None,
) -> None:
    """Check a strategy: it asks for exactly its query, nothing known, the same for any batch size, and leaves no trace.

    Args:
        make: Builds the strategy, afresh at each call.
        data: Builds what it chooses from; null for the bundled digits.
        model: Builds a classifier of so many classes; null for a small one with dropout.

    Raises:
        AssertionError: If one of these does not hold.
    """
    picks = []
    for _ in range(2):
        L.seed_everything(0, verbose=False)
        strategy, pool = make(), PoolDataModule(_data(data), initial=20, steps_per_epoch=40, seed=0)
        assert model is not None or "channels" in pool.facts, "give `model`: these data are no images, for `ConvNet`"
        net = Classifier(pool.num_classes, ConvNet(width=4), dropout=0.5) if model is None else model(pool.num_classes)
        trainer = _trainer(max_epochs=1, callbacks=[strategy])
        trainer.fit(net, datamodule=pool)
        asked = pool.asked(0)
        assert len(asked) == strategy.query_size, f"asked for {len(asked)} of {strategy.query_size} samples"
        assert len(set(asked)) == len(asked), "asked for one sample twice"
        assert not set(asked) & set(pool.asked(-1)), "asked for a labelled sample"
        picks.append([pool.keys[place] for place in asked])
    assert picks[0] == picks[1], "the same seed gives other picks"
    weights, modes = copy.deepcopy(net.state_dict()), [part.training for part in net.modules()]
    state = torch.get_rng_state()
    found = []
    for size in (1, 7, 256):
        strategy.batch_size = size
        found.append(strategy.query(trainer, net, pool)[0])
    assert found[0] == found[1] == found[2], "another batch size gives other picks"
    assert all(torch.equal(value, weights[key]) for key, value in net.state_dict().items()), "the model was changed"
    assert modes == [part.training for part in net.modules()], "the model's mode was changed"
    assert torch.equal(state, torch.get_rng_state()), "torch's global random state was changed"


def check_backbone(make: Callable[[], nn.Module], inputs: Any) -> None:
    """Check an encoder: vectors of `feature_dim` numbers, the same for any batch, and gradients to every weight.

    Args:
        make: Builds the encoder.
        inputs: Clean input of at least four samples: a tensor, or a NamedTuple of tensors.

    Raises:
        AssertionError: If one of these does not hold.
    """
    made, first = make(), pytree.tree_map(lambda rows: rows[:1], inputs)
    net = (made if isinstance(made, Backbone) else AnyModule(made, first)).eval()
    count = len(pytree.tree_leaves(inputs)[0])
    with torch.no_grad():
        together = net(inputs)
        alone = torch.cat([net(pytree.tree_map(lambda rows, n=n: rows[n : n + 1], inputs)) for n in range(count)])
    assert together.shape == (count, net.feature_dim), f"{tuple(together.shape)} is not ({count}, {net.feature_dim})"
    assert torch.allclose(together, alone, rtol=1e-3, atol=1e-4), "a sample's embedding depends on its batch"
    if not any(weight.requires_grad for weight in net.parameters()):
        return
    net.train()(inputs).square().sum().backward()
    without = [name for name, weight in net.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not without, f"no gradient reaches {', '.join(without[:5])}"


def check_data(make: Callable[[], DataModule]) -> None:
    """Check a data module: unique keys, disjoint parts that repeat, facts, batches by one call, and something to show.

    Args:
        make: Builds the data module, afresh at each call.

    Raises:
        AssertionError: If one of these does not hold.
    """
    parts, contents = [], []
    for _ in range(2):
        data = make()
        data.setup()
        train, test = data.train_samples, data.test_samples
        assert train is not None
        assert test is not None
        keys = [*train.keys, *test.keys]
        assert len(set(keys)) == len(keys), "a key names two samples"
        assert all(isinstance(key, str) for key in keys), "keys are strings"
        together = torch.cat([data.train_indices, data.val_indices])
        assert len(together.unique()) == len(together), "a sample is in two parts"  # type: ignore[no-untyped-call]
        parts.append((list(train.keys), list(test.keys), data.train_indices.tolist(), data.val_indices.tolist()))
        contents.append(train.__getitems__(list(range(min(8, len(train))))).input)
    assert parts[0] == parts[1], "built again, the samples or their parts are others"
    pairs = zip(*(pytree.tree_leaves(content) for content in contents), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs), "built again, a key names another content"
    assert len(data.class_names) == data.num_classes, "as many class names as classes"
    for name in ("num_classes", "class_names"):
        assert name in data.facts, f"`facts` lacks {name}"
    assert train is not None
    places = list(range(min(3, len(train))))
    batch = train.__getitems__(places)
    assert isinstance(batch, Batch), f"`__getitems__` returns a {type(batch).__name__}, not a Batch"
    assert batch.index.tolist() == places
    assert torch.equal(batch.target, train.targets[places])
    assert all(len(leaf) == len(places) for leaf in pytree.tree_leaves(batch.input))
    shown = data.show(train.keys[0])
    assert shown.kind in ("image", "text", "audio", "row")
    assert shown.content
