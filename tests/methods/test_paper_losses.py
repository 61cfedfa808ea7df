"""Each method's loss and gradients against the paper's formula, written naively in float64, on 1 and on 2 processes."""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support import spawn
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.backbones import ConvNet
from ssl_lightning.commands.catalogue import entries
from ssl_lightning.data import Batch
from ssl_lightning.methods import (
    BYOL,
    DINO,
    NNCLR,
    BarlowTwins,
    DeepCluster,
    MoCo,
    SimCLR,
    SimSiam,
    SSLMethod,
    SupCon,
    SwAV,
    Triplet,
    VICReg,
)

N = 8
Formula = Callable[[Any, list[Tensor], Batch], Tensor]


def unit(rows: Tensor) -> Tensor:
    return normalize(rows.double(), dim=1)


def nll(logits: list[Tensor], right: int) -> Tensor:
    total = sum((logit.exp() for logit in logits), torch.zeros((), dtype=torch.float64))
    return -(logits[right].exp() / total).log()


def mean(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).mean()


def simclr_decoupled(method: Any, views: list[Tensor], batch: Batch) -> Tensor:
    z = [unit(method.projector(method.backbone(view))) for view in views]
    losses = []
    for k in (0, 1):
        for i in range(N):
            others = [z[k][i] @ z[other][j] / 0.5 for other in (0, 1) for j in range(N) if j != i]
            losses.append(-z[0][i] @ z[1][i] / 0.5 + torch.stack(others).exp().sum().log())
    return mean(losses)


def supcon(method: Any, views: list[Tensor], batch: Batch) -> Tensor:
    z = unit(method.projector(method.backbone(torch.cat(views))))
    labels = [int(t) if t >= 0 else 100 + i for i, t in enumerate(batch.target)] * 2
    losses = []
    for i in range(2 * N):
        others = [a for a in range(2 * N) if a != i]
        logits = [z[i] @ z[a] / 0.1 for a in others]
        losses.append(mean([nll(logits, place) for place, p in enumerate(others) if labels[p] == labels[i]]))
    return mean(losses)


def triplet_hard(method: Any, views: list[Tensor], batch: Batch) -> Tensor:
    f = unit(method.projector(method.backbone(torch.cat(views))))
    losses = []
    for i in range(2 * N):
        positive = (f[i] - f[(i + N) % (2 * N)]).pow(2).sum()
        negative = torch.stack([(f[i] - f[n]).pow(2).sum() for n in range(2 * N) if (n - i) % N]).min()
        losses.append((0.2 + positive - negative).clamp(min=0))
    return mean(losses)


def moco2(method: Any, views: list[Tensor], batch: Batch) -> Tensor:
    q = [unit(method.projector(method.backbone(view))) for view in views]
    k = [unit(method.teacher(view)) for view in views]
    queue = method.criterion.memory_bank.bank.double()
    losses = []
    for a, b in ((0, 1), (1, 0)):
        for i in range(N):
            losses.append(nll([q[a][i] @ key / 0.2 for key in (k[b][i], *queue)], 0))
    return mean(losses)


def moco3(method: Any, views: list[Tensor], batch: Batch) -> Tensor:
    q = [unit(method.predictor(method.projector(method.backbone(view)))) for view in views]
    k = [unit(method.teacher(view)) for view in views]
    losses = [nll([q[a][i] @ key / 0.2 for key in k[b]], i) for a, b in ((0, 1), (1, 0)) for i in range(N)]
    return 2 * mean(losses) * 2 * 0.2


def nnclr(method: Any, views: list[Tensor], batch: Batch) -> Tensor:
    z = [method.projector(method.backbone(view)) for view in views]
    p = [unit(method.predictor(rows)) for rows in z]
    queue = unit(method.queue.bank)
    losses = []
    for a, b in ((0, 1), (1, 0)):
        for i in range(N):
            near = queue[(queue @ unit(z[a])[i].detach()).argmax()]
            losses.append(nll([near @ other / 0.1 for other in p[b]], i))
    return mean(losses)


def byol(method: Any, views: list[Tensor], batch: Batch) -> Tensor:
    q = [unit(method.predictor(method.projector(method.backbone(view)))) for view in views]
    t = [unit(method.teacher(view)) for view in views]
    return mean([(q[a][i] - t[b][i]).pow(2).sum() for a, b in ((0, 1), (1, 0)) for i in range(N)])


def simsiam(method: Any, views: list[Tensor], batch: Batch) -> Tensor:
    z = [method.projector(method.backbone(view)) for view in views]
    p = [unit(method.predictor(rows)) for rows in z]
    return mean([-p[a][i] @ unit(z[b])[i].detach() for a, b in ((0, 1), (1, 0)) for i in range(N)])


def barlow_twins(method: Any, views: list[Tensor], batch: Batch) -> Tensor:
    a, b = (method.projector(method.backbone(view)).double() for view in views)
    a, b = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in (a, b))
    loss = torch.zeros((), dtype=torch.float64)
    for i in range(a.shape[1]):
        for j in range(a.shape[1]):
            c = (a[:, i] * b[:, j]).mean()
            loss = loss + ((1 - c) ** 2 if i == j else 5e-3 * c**2)
    return loss


def vicreg(method: Any, views: list[Tensor], batch: Batch) -> Tensor:
    z = [method.projector(method.backbone(view)).double() for view in views]
    d = z[0].shape[1]
    loss = 25 * (z[0] - z[1]).pow(2).mean()
    for rows in z:
        spread = (rows.var(0) + 1e-4).sqrt()
        loss = loss + 25 / 2 * sum((1 - spread[i]).clamp(min=0) for i in range(d)) / d
        centred = rows - rows.mean(0)
        covariances = [(centred[:, i] @ centred[:, j] / (N - 1)) ** 2 for i in range(d) for j in range(d) if i != j]
        loss = loss + torch.stack(covariances).sum() / d
    return loss


def dino(method: Any, views: list[Tensor], batch: Batch) -> Tensor:
    s = [method.projector(method.backbone(view)).double() / 0.1 for view in views]
    t = [
        ((method.teacher(view).double() - method.criterion.center[0].double()) / 0.06).softmax(1) for view in views[:2]
    ]
    losses = []
    for a in range(2):
        for b in range(len(views)):
            if a != b:
                losses += [sum(t[a][i, k] * nll(list(s[b][i]), k) for k in range(s[b].shape[1])) for i in range(N)]
    return mean(losses)


def sinkhorn(scores: Tensor) -> Tensor:
    """Rows of samples sum to one, columns of prototypes are evenly filled, by three alternations."""
    q = (scores / 0.03).exp()
    for _ in range(3):
        q = q / q.sum(0, keepdim=True) / q.shape[1]
        q = q / q.sum(1, keepdim=True) / q.shape[0]
    return q * q.shape[0]


def swav(method: Any, views: list[Tensor], batch: Batch) -> Tensor:
    c = method.prototypes.heads[0].weight.double()  # of length 1 already
    scores = [unit(method.projector(method.backbone(view))) @ c.T for view in views]
    losses = []
    for a in range(2):
        queue = unit(method.queues[a].bank) @ c.detach().T
        q = sinkhorn(torch.cat([scores[a].detach(), queue]))[:N]
        for b in range(len(views)):
            if a != b:
                p = [list(scores[b][i] / 0.1) for i in range(N)]
                losses += [sum(q[i, k] * nll(p[i], k) for k in range(len(c))) for i in range(N)]
    return mean(losses)


def deepcluster(method: Any, views: list[Tensor], batch: Batch) -> Tensor:
    logits = method.head(method.backbone(torch.cat(views))).double()
    return mean([nll(list(logits[i]), int(method.assignments[batch.index[i % N]])) for i in range(2 * N)])


def with_clusters(net: ConvNet) -> DeepCluster:
    method = DeepCluster(net, clusters=5)
    method.assignments = torch.tensor([3, 1, 4, 1, 0, 2, 2, 0])
    return method


CASES: dict[str, tuple[Callable[[ConvNet], SSLMethod], Formula, int]] = {  # method, its formula, views
    "SimCLR, decoupled": (lambda net: SimCLR(net, decoupled=True), simclr_decoupled, 2),
    "SupCon": (lambda net: SupCon(net), supcon, 2),
    "Triplet": (lambda net: Triplet(net, negatives="hard"), triplet_hard, 2),
    "MoCo 2": (lambda net: MoCo(net, queue_size=20, projection_dim=6, hidden_dim=16), moco2, 2),
    "MoCo 3": (lambda net: MoCo(net, version=3, projection_dim=6, hidden_dim=16), moco3, 2),
    "NNCLR": (lambda net: NNCLR(net, queue_size=20, projection_dim=6, hidden_dim=16), nnclr, 2),
    "BYOL": (lambda net: BYOL(net, projection_dim=6, hidden_dim=16), byol, 2),
    "SimSiam": (lambda net: SimSiam(net, projection_dim=6, hidden_dim=16), simsiam, 2),
    "BarlowTwins": (lambda net: BarlowTwins(net, projection_dim=6), barlow_twins, 2),
    "VICReg": (lambda net: VICReg(net, projection_dim=6), vicreg, 2),
    "DINO": (lambda net: DINO(net, outputs=7, hidden_dim=16), dino, 4),
    "SwAV": (lambda net: SwAV(net, prototypes=5, queue_size=10, projection_dim=6, hidden_dim=16), swav, 4),
    "DeepCluster": (with_clusters, deepcluster, 2),
}


def prepared(name: str) -> tuple[SSLMethod, list[Tensor], Batch]:
    """A method whose teacher differs from the student, in evaluation mode: batch norm would see other batches."""
    torch.manual_seed(1)
    make, _, count = CASES[name]
    method = make(ConvNet(width=4)).eval()
    if hasattr(method, "teacher"):
        with torch.no_grad():
            for parameter in method.teacher.parameters():  # type: ignore[union-attr]
                parameter.add_(0.05 * torch.randn_like(parameter))
    if isinstance(method, SwAV):
        method.prototypes.normalize()  # type: ignore[operator]
    sizes = [8, 8, 8, 8] if count == 2 else [8, 8, 4, 4]
    views = [torch.randn(N, 1, size, size) for size in sizes[:count]]
    return method, views, Batch(None, torch.tensor([0, 1, 0, -1, 2, 1, -1, 3]), torch.arange(N))


def assert_close(found: Sequence[Tensor | None], wanted: Sequence[Tensor | None]) -> None:
    """To a ten-thousandth of the largest gradient: some are zero but for rounding, as of a bias before batch norm."""
    scale = max(float(gradient.abs().max()) for gradient in wanted if gradient is not None)
    assert scale > 1e-4
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * scale)


def trainable(method: SSLMethod) -> list[Tensor]:
    return [parameter for parameter in method.parameters() if parameter.requires_grad]


def test_every_method_has_a_case() -> None:
    """The others are held to their formulas in test_{pretext,generative,masked,pairs}.py, and beside their data."""
    elsewhere = {
        "Autoencoder", "CLIP", "CausalText", "Colorization", "GAN", "Inpainting", "Jigsaw", "MAE", "MaskedText",
        "RelativePosition", "Rotation", "SSGAN", "SigLIP", "SimMIM", "VAE", "VIME", "ViLBERT",
    }  # fmt: skip
    here = {type(make(ConvNet(width=4))).__name__ for make, _, _ in CASES.values()}
    assert here | elsewhere == {entry.name for entry in entries() if entry.kind == "methods"}


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_are_the_papers(name: str) -> None:
    method, views, batch = prepared(name)
    expected = CASES[name][1](method, views, batch)
    got = method.compute_loss(views, batch)["loss"]
    assert float(got) == pytest.approx(float(expected), rel=1e-4)
    want = torch.autograd.grad(expected, trainable(method), allow_unused=True)
    have = torch.autograd.grad(got, trainable(method), allow_unused=True)
    assert_close(have, want)


def gradients(rank: int, world: int, name: str) -> tuple[float, list[Tensor | None], dict[str, Tensor]]:
    """Loss and gradients of this rank's part of the batch, averaged as DDP does, and the buffers afterwards."""
    method, views, batch = prepared(name)
    part = slice(rank * N // world, (rank + 1) * N // world)
    mine = Batch(None, batch.target[part], batch.index[part])
    loss = method.compute_loss([view[part] for view in views], mine)["loss"]
    loss.backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad for parameter in trainable(method)]
    value = loss.detach().clone()
    if world > 1:
        for tensor in [value, *(gradient for gradient in found if gradient is not None)]:
            torch.distributed.all_reduce(tensor)
            tensor /= world
    return float(value), found, dict(method.named_buffers())


def all_gradients(rank: int, world: int) -> dict[str, Any]:
    return {name: gradients(rank, world, name) for name in CASES}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return spawn(all_gradients, 2, tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("BarlowTwins", "SwAV")])
def test_two_processes_do_what_one_does(name: str, two: list[dict[str, Any]]) -> None:
    """Averaged loss and gradients are those of the whole batch, and so are centre and queue, on both ranks."""
    value, alone, buffers = gradients(0, 1, name)
    for found in two:
        got, grads, others = found[name]
        assert got == pytest.approx(value, rel=1e-4)
        assert_close(grads, alone)
        for key in buffers:
            if "bank" in key and name == "MoCo 2":  # another order: process by process, each view by view
                one, other = (b[key].double().view(len(b[key]), -1) for b in (buffers, others))
                assert one.shape == other.shape
                assert float(torch.cdist(one, other).min(dim=1).values.max()) < 1e-4
            elif "bank" in key or "center" in key or "queue" in key:
                torch.testing.assert_close(others[key], buffers[key], rtol=1e-4, atol=1e-5)


def test_barlow_twins_averages_the_correlations_of_two_processes(two: list[dict[str, Any]]) -> None:
    """Each process normalises by its own batch, as the authors' code does, so that two are not quite one."""
    method, views, _ = prepared("BarlowTwins")
    correlation = torch.zeros(6, 6, dtype=torch.float64)
    for part in (slice(0, 4), slice(4, 8)):
        a, b = (method.projector(method.backbone(view[part])).double() for view in views)  # type: ignore[operator]
        a, b = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in (a, b))
        correlation = correlation + a.T @ b / 4 / 2
    eye = torch.eye(6, dtype=torch.float64)
    expected = ((correlation - eye) ** 2 * (eye + 5e-3 * (1 - eye))).sum()
    want = torch.autograd.grad(expected, trainable(method))
    for found in two:
        value, grads, _ = found["BarlowTwins"]
        assert value == pytest.approx(float(expected), rel=1e-4)
        assert_close(grads, want)


def test_swav_on_two_processes_shares_codes_and_queue(two: list[dict[str, Any]]) -> None:
    """The codes of two processes are those of the whole batch and queue; only the order of samples differs."""
    value, alone, buffers = gradients(0, 1, "SwAV")
    for found in two:
        got, grads, others = found["SwAV"]
        assert got == pytest.approx(value, rel=1e-4)
        assert_close(grads, alone)
        for key in buffers:
            if "queues" in key:
                torch.testing.assert_close(others[key], buffers[key], rtol=1e-4, atol=1e-5)


def test_moco_contrasts_no_view_with_its_own_key() -> None:
    """The keys of this batch enter the queue after both directions were contrasted."""
    method, views, batch = prepared("MoCo 2")
    bank = method.criterion.memory_bank  # type: ignore[union-attr]
    with torch.no_grad():
        k = [normalize(method.teacher(view), dim=1) for view in views]  # type: ignore[operator]
    method.compute_loss(views, batch)
    torch.testing.assert_close(bank.bank[:16], torch.cat([k[1], k[0]]))  # type: ignore[union-attr]
    assert int(bank.bank_ptr) == 16  # type: ignore[union-attr,arg-type]


def test_swav_refuses_what_its_codes_cannot_hold() -> None:
    """At the least epsilon the loss is finite even where all scores of a prototype are the least there are."""
    with pytest.raises(ValueError, match=r"`epsilon=0\.001` must be at least 0\.025; float32 holds no exponential"):
        SwAV(ConvNet(width=4), epsilon=0.001)
    criterion = SwAV(ConvNet(width=4), epsilon=0.025).criterion
    scores = torch.cat([torch.ones(256, 1), -torch.ones(256, 1)], dim=1)
    scores[0] = -1
    assert criterion([scores, scores], []).isfinite().all()


def test_losses_of_a_constant_embedding() -> None:
    """Contrastive losses are then those of guessing."""
    method = SimCLR(ConvNet(width=4), decoupled=False).eval()
    views = [torch.zeros(N, 1, 8, 8)] * 2
    loss = method.compute_loss(views, Batch(None, torch.zeros(N), torch.arange(N)))["loss"]
    assert float(loss) == pytest.approx(math.log(2 * N - 1), rel=1e-5)


def test_files_are_small() -> None:
    import ssl_lightning.methods as package

    for path in Path(package.__path__[0]).glob("*.py"):
        text = re.sub(r"\n    Example:\n(        .*\n)+", "\n", path.read_text())  # an example takes what it takes
        assert len(text.splitlines()) <= 200, path.name
