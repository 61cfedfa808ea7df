"""BatchBALD: what the labels of a whole batch tell about the weights, by greedy choice."""

import torch
from torch import Tensor

from ssl_lightning.engine.devices import home
from ssl_lightning.functional.selection import top

_BLOCK = 2**22  # floats of a product; stays near the cache, bounds the memory
_ROUNDING = 3e-7  # of an entropy in float32, as a share of one more than itself


def batch_bald(
    probabilities: Tensor, indices: Tensor, count: int, generator: torch.Generator, configurations: int = 10_000
) -> tuple[Tensor, Tensor]:
    r"""Choose a batch by the mutual information between its joint label and the weights.

    .. math:: I(y_1, \dots, y_b; w) = H(y_1, \dots, y_b) - \sum_i E_w[H(y_i | w)]

    greedily: it is submodular, so what a candidate adds only falls, and most candidates need not be looked at again.
    Of drawn joint labels, a tenth rules out all candidates that are more than three standard errors from the best.
    What candidate x adds is :math:`E_c[H(y | c)] - E_w[H(y | w)]`, where c runs over the joint labels of the batch so
    far and :math:`p(y | c) = \sum_k w_k(c)\, p_k(y | x)` weighs the K members by how well they predict c. The
    expectation is exact while the batch has at most `configurations` joint labels; beyond, it is a mean over so many
    draws, the same number from each member.

    Args:
        probabilities: Under K draws of the weights, the same for all candidates, `(N, K, classes)`.
        indices: Dataset index of each, `(N,)`; ties go by it.
        count: Size of the batch, at most N.
        generator: Of the drawn joint labels.
        configurations: Joint labels, at least one of each member; the error of the entropy falls with its root.

    Returns:
        Positions in the order of choice, and what each added in nats, `(count,)` each. The first adds its BALD score.
        Once no candidate adds a hundred-thousandth of what the first did, or more than rounding (some 0.000001 nats),
        the rest are those of largest BALD score.

    Raises:
        ValueError: If there are too few candidates, or a probability is no number.

    Reference:
        A. Kirsch, J. van Amersfoort, Y. Gal, BatchBALD, NeurIPS 2019, arXiv 1906.08158, Eq. 8 and algorithm 1; exact by
        Eq. 12, drawn by Eq. 14. We keep weights of members where the paper keeps joint probabilities, which do not
        shrink with the batch; the values are the same.
    """
    probabilities, indices = home(probabilities, indices)
    total, members, classes = probabilities.shape
    if count > total:
        raise ValueError(f"`count={count}` exceeds the {total} candidates.")
    if not probabilities.isfinite().all():
        raise ValueError("a probability is NaN: the model's outputs are not finite; look at its training loss.")
    probabilities = probabilities.float()
    width = max(1, _BLOCK // (members * classes))
    parts = [_alone(part.double()) for part in torch.split(probabilities, width)]
    given_weights, predicted = (torch.cat(found) for found in zip(*parts, strict=True))  # (N,) both
    alone, slack = (predicted - given_weights).round(decimals=9), _ROUNDING * (1 + predicted)
    joint = _Joint(members, classes, configurations, generator)
    bounds = torch.full((total,), torch.inf, dtype=torch.float64)  # what each added when it was last looked at
    left = indices.argsort(stable=True)  # who can still be chosen
    chosen: list[int] = []
    gains: list[float] = []
    for _ in range(count):
        fresh = _look(joint, probabilities, given_weights, bounds, left, float(slack.max()))
        most, best = fresh.max(dim=0)
        least = max(1e-5 * gains[0] if gains else 0.0, float(slack[left[best]]))
        if most < least:  # the batch tells all there is to know: the rest by what each tells alone
            rest = left[top(alone[left], indices[left], count - len(chosen))]
            return torch.cat([torch.tensor(chosen, dtype=torch.int64), rest]), torch.tensor(gains + [0.0] * len(rest))
        place = (fresh >= most - slack[left[best]]).nonzero()[0]
        chosen.append(int(left[place]))
        gains.append(float(fresh[place]))
        left = left[left != chosen[-1]]
        joint.add(probabilities[chosen[-1]])
    return torch.tensor(chosen), torch.tensor(gains)


def _alone(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Return the expected entropy given the weights, and that of the mean prediction, of `(n, K, classes)`."""
    expected, mean = torch.special.entr(probabilities).sum(dim=2).mean(dim=1), probabilities.mean(dim=1)
    return expected, torch.special.entr(mean).sum(dim=1)


def _look(
    joint: "_Joint", probabilities: Tensor, given_weights: Tensor, bounds: Tensor, left: Tensor, slack: float
) -> Tensor:
    """Return what candidates add, minus infinity for those whose bound rules them out.

    Args:
        joint: Of the batch so far.
        probabilities: Of all candidates, `(N, K, classes)`.
        given_weights: Their expected entropy given the weights, `(N,)`.
        bounds: What each can add at most, `(N,)`; lowered where it is found.
        left: The candidates that can still be chosen, positions `(n,)`.
        slack: What a bound can be wrong by at most.

    Returns:
        In nats, `(n,)`.
    """
    fresh = torch.full_like(bounds, -torch.inf)
    for block in torch.split(_falling(bounds, left), joint.width(rough=True)):
        if float(bounds[block[0]]) < float(fresh.max()) - 2 * slack:
            break
        means, errors = joint.entropies(probabilities[block], rough=True)
        bounds[block] = means + errors - given_weights[block]
        if joint.drawn is None:
            fresh[block] = bounds[block]
            continue
        for some in torch.split(_falling(bounds, block), joint.width()):
            if float(bounds[some[0]]) < float(fresh.max()) - 2 * slack:
                break
            means, errors = joint.entropies(probabilities[some])
            fresh[some] = means - given_weights[some]
            bounds[some] = fresh[some] + errors
    return fresh[left]


def _falling(bounds: Tensor, some: Tensor) -> Tensor:
    """Order some candidates by their bounds, the largest first."""
    return some[bounds[some].argsort(descending=True, stable=True)]


class _Joint:
    """The joint labels of a growing batch: how likely each is, and what it says of the members."""

    def __init__(self, members: int, classes: int, configurations: int, generator: torch.Generator) -> None:
        self.classes, self.limit, self.generator = classes, max(configurations, members), generator
        self.shares = torch.ones(1)  # of each joint label, (M,)
        self.weights = torch.full((1, members), 1 / members)  # of the members given each, (M, K)
        self.drawn: Tensor | None = None  # the member that each label was drawn from, (M,)
        self.batch: list[Tensor] = []

    def width(self, rough: bool = False) -> int:
        """Return how many candidates to look at together."""
        return max(1, _BLOCK // (len(self._some(rough)) * self.classes))

    def _some(self, rough: bool) -> Tensor:
        if self.drawn is None or not rough:
            return self.weights
        # labels are drawn from the members in turn: whole turns hold each member as often as the others
        members = self.weights.shape[1]
        return self.weights[: max(1, len(self.weights) // members // 10) * members]

    def entropies(self, candidates: Tensor, rough: bool = False) -> tuple[Tensor, Tensor]:
        """Return each candidate's expected entropy given the joint label, and three standard errors of it.

        Args:
            candidates: `(n, K, classes)`.
            rough: Be content with a tenth of the joint labels, if they are drawn.

        Returns:
            `(n,)` both; the errors are 0 where the expectation is exact.
        """
        weights = self._some(rough)
        joint = weights @ candidates.permute(1, 0, 2).flatten(1)  # (M, n * classes)
        surprise = joint.clamp(min=1e-38).log_().mul_(joint).neg_()
        each = surprise.reshape(len(joint), len(candidates), self.classes).sum(dim=2)  # (M, n)
        if self.drawn is None:
            return self.shares.double() @ each.double(), torch.zeros(len(candidates), dtype=torch.float64)
        return each.double().mean(dim=0), 3 * each.double().std(dim=0, correction=min(1, len(each) - 1)) / len(
            each
        ) ** 0.5

    def add(self, chosen: Tensor) -> None:
        """Extend all joint labels by the chosen candidate's, `(K, classes)`."""
        self.batch.append(chosen)
        if self.drawn is None and len(self.shares) * self.classes <= self.limit:
            joint = self.shares[:, None, None] * self.weights[:, None] * chosen.T  # (M, classes, K)
            joint = joint.flatten(0, 1)
            joint = joint[joint.sum(dim=1) > 0]
            self.shares = joint.sum(dim=1)
            self.weights = joint / self.shares[:, None]
            return
        news = [chosen]
        if self.drawn is None:  # from here on draw all labels
            members = self.weights.shape[1]
            self.drawn = torch.arange(members).repeat(-(-self.limit // members))
            self.weights = torch.full((len(self.drawn), members), 1 / members)
            news = self.batch
        for sample in news:
            ends = sample[self.drawn].double().cumsum(dim=1)  # (M, classes)
            draws = torch.rand(len(ends), 1, generator=self.generator, dtype=torch.float64)
            labels = torch.searchsorted(ends, draws * ends[:, -1:], right=True)[:, 0].clamp(max=self.classes - 1)
            self.weights = self.weights * sample.T[labels]
            self.weights /= self.weights.sum(dim=1, keepdim=True)
