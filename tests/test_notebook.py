"""What one writes in a notebook at night: subclasses outside the package, a dozen lines each, trained and used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ssl_lightning.active import AcquisitionStrategy, PoolDataModule, run_rounds
from ssl_lightning.backbones import ConvNet
from ssl_lightning.data import Digits
from ssl_lightning.engine.optim import OptimizerSpec
from ssl_lightning.evaluation import KNN
from ssl_lightning.methods import SSLMethod
from ssl_lightning.supervised.classifier import Classifier
from ssl_lightning.transforms.image import SimCLRViews


class AlignUniform(SSLMethod):
    """Wang and Isola 2020, arXiv 2005.10242: views of an image align, all images spread over the sphere."""

    def __init__(self, backbone: ConvNet, **options: Any) -> None:
        super().__init__(backbone, SimCLRViews(flip=0, crop_scale=(0.4, 1)), **options)
        self.head = torch.nn.Linear(backbone.feature_dim, 32)

    def compute_loss(self, views: Any, batch: Any) -> Any:
        h = self.backbone(torch.cat(list(views)))
        a, b = torch.nn.functional.normalize(self.head(h), dim=1).chunk(2)
        align = (a - b).pow(2).sum(dim=1).mean()
        uniform = torch.pdist(a).pow(2).mul(-2).exp().mean().log()
        return {"loss": align + uniform, "embedding": h[: len(a)]}


class SmallestMargin(AcquisitionStrategy):
    """Asks where the two most likely classes are closest."""

    def score(self, predictions: Any) -> Tensor:
        best, second = predictions.log_probabilities.exp().topk(2, dim=1).values.T
        return second - best  # type: ignore[no-any-return]


def test_subclasses_train_and_choose(trainer: Callable[..., L.Trainer], tmp_path: Path) -> None:
    untrained = trainer(callbacks=[KNN()]).validate(AlignUniform(ConvNet(width=16)), datamodule=Digits(), verbose=False)
    method = AlignUniform(ConvNet(width=16), optimizer=OptimizerSpec(lr=3e-3))
    fit = trainer(max_epochs=20, callbacks=[KNN(every_n_epochs=20)])
    fit.fit(method, datamodule=Digits(batch_size=128))
    assert fit.callback_metrics["val/knn_accuracy"] > untrained[0]["val/knn_accuracy"]
    fit.save_checkpoint(tmp_path / "ssl.ckpt")
    rows = run_rounds(
        make_model=lambda: Classifier(10, checkpoint=str(tmp_path / "ssl.ckpt"), optimizer=OptimizerSpec(lr=3e-3)),
        make_trainer=lambda callbacks: trainer(max_epochs=1, callbacks=callbacks, enable_progress_bar=True),
        pool=PoolDataModule(Digits(batch_size=64)),
        strategy=SmallestMargin(query_size=10),
        rounds=3,
        folder=str(tmp_path / "run"),
    )
    assert [row["labelled"] for row in rows] == [20, 30, 40, 50]
    assert rows[-1]["test/accuracy"] > rows[0]["test/accuracy"]
