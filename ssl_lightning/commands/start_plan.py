"""What `start` takes for each kind of data, and how it divides the minutes. All that can be tuned is in this file."""

import math
from dataclasses import dataclass, field
from typing import Any

# --- for every kind of data -------------------------------------------------------------------------------------------
ROUNDS = 4  # queries after the first, at most
LEAST_QUERY = 5  # labels; fewer rounds where a query would be smaller
RESERVE = 0.08  # share of the minutes for starting, the rounds, predictions and the report
LEAST_STEPS = 20  # of pretraining, and of training: with fewer the minutes are too few
TRIAL_SHARE = 0.01  # share of the minutes for each of the two trials that measure the seconds of a step
TRIAL_SECONDS = 15.0  # of each trial at most
EPOCH_SECONDS = 30.0  # about so long is an epoch, after which a stopped run goes on
MOST_EPOCHS = 20
PEOPLE_TEST = 0.2  # of people's answers test, where nothing is labelled
TEST_SIZE = 0.2  # of labelled data test, where no folder says which
SMALLEST, SMALL = 8, 32  # px: sides of small pictures
LARGE, LARGE_GPU = 64, 96  # px: side at most of larger ones, on a CPU and on a GPU
WARMUP = 0.05


@dataclass(frozen=True)
class Choice:
    """What `start` takes for one kind of data.

    Attributes:
        backbone: The encoder, as a config names it.
        gpu_backbone: On a GPU instead; null for the same.
        views: Of pretraining; null for those that the data suggest.
        gray_views: Of gray pictures instead, which are mostly writing.
        temperature: Of SimCLR.
        lr: Of AdamW, in pretraining.
        train_lr: Of the last training.
        batch: Samples a step of pretraining.
        train_batch: Labelled samples a step of the last training.
        classifier: Of the last training, and its options.
        pretrain_share: Of the minutes that are left after the reserve.
        most_passes: Over the data in pretraining: with more minutes it learns no more.
        most_steps: Of the last training, likewise.
    """

    backbone: dict[str, Any]
    gpu_backbone: dict[str, Any] | None = None
    views: dict[str, Any] | None = None
    gray_views: dict[str, Any] | None = None
    temperature: float = 0.5
    lr: float = 3e-3
    train_lr: float = 3e-3
    batch: int = 256
    train_batch: int = 64
    classifier: str = "FreeMatch"
    classifier_options: dict[str, Any] = field(default_factory=dict)
    pretrain_share: float = 0.5
    most_passes: int = 400
    most_steps: int = 6000


def spec(name: str, **options: Any) -> dict[str, Any]:
    """Return a class as a config names it.

    Example:
        >>> spec("ConvNet", width=32)
        {'class_path': 'ConvNet', 'init_args': {'width': 32}}
    """
    return {"class_path": name, "init_args": options}


# --- for each kind: THE table to tune ---------------------------------------------------------------------------------
CHOICES: dict[str, Choice] = {
    "images": Choice(
        backbone=spec("ConvNet", width=32),  # what label_efficiency.py was measured with; a wider one takes fewer steps
        gpu_backbone=spec("ResNet"),
        gray_views=spec("SimCLRViews", crop_scale=[0.4, 1.0], flip=0.0),
    ),
    "sound": Choice(
        backbone=spec("AudioNet", width=24, dim=256),
        views=spec("AudioViews", crop=[0.7, 1.1], speed=0.2, pitch=0.2),
        temperature=0.2,
        batch=128,
        train_batch=32,
    ),
    "text": Choice(
        backbone=spec("TextTransformer", dim=128, depth=2, heads=4, dropout=0.1),
        views=spec("TokenViews", crop=0.4, drop=0.2),
        temperature=0.1,
        lr=1e-3,
        train_lr=1e-3,
        batch=128,
        most_steps=3000,
    ),
    "rows": Choice(
        backbone=spec("RowNet"),
        temperature=1.0,
        lr=1e-3,
        train_lr=3e-4,
        batch=128,
        train_batch=32,
        classifier="Classifier",
        pretrain_share=0.5,
        most_passes=300,
        most_steps=1000,
    ),
}


@dataclass(frozen=True)
class Plan:
    """How the minutes and the labels are divided.

    Attributes:
        pretrain: Epochs of pretraining, and steps of each.
        train: Of the last training, likewise.
        initial: Labels of the first query.
        query_size: Of each further one.
        rounds: Further queries.
        seconds: Of each step, by its name: what it is expected to take.
    """

    pretrain: tuple[int, int]
    train: tuple[int, int]
    initial: int
    query_size: int
    rounds: int
    seconds: dict[str, float]


def divide_labels(labels: int) -> tuple[int, int, int]:
    """Return the size of the first query, of each further one, and how many these are.

    Example:
        >>> divide_labels(500), divide_labels(12), divide_labels(3)
        ((100, 100, 4), (6, 6, 1), (3, 5, 0))
    """
    rounds = max(0, min(ROUNDS, labels // LEAST_QUERY - 1))
    query = labels // (rounds + 1) if rounds else LEAST_QUERY
    return labels - rounds * query, query, rounds


def make_plan(choice: Choice, minutes: float, labels: int, pool: int, test: int, steps: dict[str, float]) -> Plan:
    """Divide minutes and labels.

    Args:
        choice: Of the kind of data.
        minutes: For all.
        labels: To ask for.
        pool: Samples to pretrain on.
        test: Samples to test on.
        steps: Seconds a step, of `pretrain` and of `train`, as measured.

    Returns:
        The plan.

    Raises:
        ValueError: If the minutes are too few for anything.
    """
    initial, query, rounds = divide_labels(labels)
    batch = min(choice.batch, pool)
    encode = steps["pretrain"] / (6 * batch)  # seconds a sample: two views, forward and backward of each
    active = 2 * (rounds + 1) * (pool + test) * encode
    left = 60 * minutes * (1 - RESERVE) - active
    shares = {"pretrain": choice.pretrain_share, "train": 1 - choice.pretrain_share}
    least = max(LEAST_STEPS * steps[name] / share for name, share in shares.items())
    if left < least:
        needed = math.ceil(10 * (least + active) / (60 * (1 - RESERVE)) + 0.5) / 10
        raise ValueError(
            f"`minutes={minutes:g}` are too few: a step of pretraining takes {steps['pretrain']:.2g} s here, one of "
            f"training {steps['train']:.2g} s, the queries {active:.0f} s, and {LEAST_STEPS} steps of each are the "
            f"least; give at least {needed:g}, or fewer files."
        )
    most = {"pretrain": choice.most_passes * max(1, pool // batch), "train": choice.most_steps}
    counts = {name: min(most[name], int(left * shares[name] / steps[name])) for name in shares}
    for name, other in (("pretrain", "train"), ("train", "pretrain")):  # what one does not need is the other's
        spare = left - sum(counts[part] * steps[part] for part in counts)
        if counts[other] == most[other]:
            counts[name] = min(most[name], counts[name] + max(0, int(spare / steps[name])))
    parts = {name: in_epochs(counts[name], steps[name]) for name in counts}
    seconds = {name: math.prod(parts[name]) * steps[name] for name in parts}
    return Plan(
        parts["pretrain"], parts["train"], initial, query, rounds,
        {"pretrain": seconds["pretrain"], "active": active, "train": seconds["train"]},
    )  # fmt: skip


def in_epochs(steps: int, seconds: float) -> tuple[int, int]:
    """Return how many epochs steps are divided into, and the steps of each.

    Example:
        >>> in_epochs(1000, 0.3)
        (10, 100)
    """
    epochs = max(1, min(MOST_EPOCHS, steps, round(steps * seconds / EPOCH_SECONDS)))
    return epochs, steps // epochs
