"""HCDC: validation data that rank hyperparameters as the real data do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from condensery.batch import Batch
from condensery.bilevel.gauss_newton import CompositeLoss
from condensery.bilevel.learner import Converged, Learner, Training
from condensery.bilevel.response import Explicit, Response, slopes
from condensery.fitting import Source
from condensery.spaces.space import Space, composite
from condensery.synthetic import Synthetic

__all__ = ["HCDC", "Distance", "Pieces", "Sampled", "Teacher", "Validation", "by_point", "together"]

Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Of hypergradients at k points, real and synthetic ``[k, p]``: a scalar. `by_point` or `together`."""


def by_point(real: Tensor, ours: Tensor) -> Tensor:
    """The mean over points of 1 - cosine (eq. HCDC): 0 where the hypergradients ``[k, p]`` point the same way.

    The cosine with a gradient of zero is 0.
    """
    sizes = real.norm(dim=1) * ours.norm(dim=1)
    return (1 - (real * ours).sum(1) / torch.where(sizes > 0, sizes, 1.0)).mean()


def together(real: Tensor, ours: Tensor) -> Tensor:
    """1 - cosine of all points' hypergradients ``[k, p]`` as one vector: 0 where one field is a multiple of the other.

    Then the losses differ by a factor and a constant on a connected set, so that the order is kept whatever its shape:
    more than the theorem asks for, which fails where level sets are not connected, as on trajectories that meet. It can
    be descended where there is one hyperparameter, too: there the cosine at a point is a sign.
    """
    return by_point(real.reshape(1, -1), ours.reshape(1, -1))


class Validation(Protocol):
    """Real validation data as what the loss is a sum over."""

    def __call__(self, generator: torch.Generator) -> Iterable[tuple[float, Batch]]:
        """Shares and batches: the validation loss is the sum over them of share times the batch's loss."""


@dataclass(frozen=True, eq=False)
class Pieces:
    """Always the same batches.

    Args:
        pieces: Shares and batches.

    Example:
        >>> [share for share, _ in Pieces.of(Batch(torch.zeros(6, 2), torch.zeros(6).long()), 4)(torch.Generator())]
        [0.5, 0.5]
    """

    pieces: Sequence[tuple[float, Batch]]

    def __call__(self, generator: torch.Generator) -> Iterable[tuple[float, Batch]]:
        """See `Validation`."""
        return self.pieces

    @classmethod
    def of(cls, batch: Batch, size: int | None = None) -> Pieces:
        """One batch, or if its ``x`` is a tensor pieces of about `size` examples, of a loss that is their mean."""
        n = len(batch.y)
        if size is None or size >= n:
            return cls([(1.0, batch)])
        parts = zip(batch.x.tensor_split(-(-n // size)), batch.y.tensor_split(-(-n // size)), strict=True)
        return cls([(len(y) / n, Batch(x, y)) for x, y in parts])


@dataclass(frozen=True, eq=False)
class Sampled:
    """A random batch each time, for validation sets that are too large to be seen whole at every point.

    Args:
        source: The validation set.
        count: Examples of a batch.
        view: What the space is given of it, such as `spaces.in_folds`.
    """

    source: Source
    count: int
    view: Callable[[Batch], Batch] | None = None

    def __call__(self, generator: torch.Generator) -> Iterable[tuple[float, Batch]]:
        """See `Validation`."""
        batch = self.source.batch(torch.randperm(len(self.source), generator=generator)[: self.count])
        return [(1.0, batch if self.view is None else self.view(batch))]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A network trained on the real training set, for the real hypergradients.

    Args:
        draw: A training batch; a mini-batch of the real training set at each step.
        learner: How it is trained.
        curvature: The batch whose loss has the second derivatives, a larger one; `draw` by default.
        stride: Its training steps for each one of the network on the synthetic training set.
    """

    draw: Callable[[torch.Generator], Batch]
    learner: Learner = field(default_factory=Converged)
    curvature: Callable[[torch.Generator], Batch] | None = None
    stride: int = 1


@dataclass(frozen=True, eq=False)
class Point:
    """A point of the extended space with what does not depend on the synthetic validation set.

    Attributes:
        lam: ``[p]``.
        theta: Weights trained there on the synthetic training set, ``[P]``.
        target: The real hypergradient ``[p]``.
        seed: Of what is random in the losses there.
        response: J.
    """

    lam: Tensor
    theta: Tensor
    target: Tensor
    seed: int
    response: Response

    def state_dict(self) -> dict[str, Any]:
        """Plain data; a response without a matrix is made anew."""
        matrix = self.response.jacobian if isinstance(self.response, Explicit) else None
        return {"lam": self.lam, "theta": self.theta, "target": self.target, "seed": self.seed, "jacobian": matrix}


@dataclass
class HCDC:
    """Hyperparameter-calibrated dataset condensation (Ding et al. 2024, https://arxiv.org/abs/2405.17535), algorithm 1.

    With T the real data, S_train a condensed training set that is made beforehand, and the extended search space a
    connected set in which lambda moves,

        S_val = argmin sum_lambda D_cos( grad_lambda L*_T(lambda), grad_lambda L*_S(lambda) )        (eq. HCDC),

    where L*(lambda) is the validation loss of the weights that training under lambda ends at. Hypergradients that point
    the same way everywhere are to make both losses rank all hyperparameters alike (theorem 1; it needs connected level
    sets as well, without which the distance `together` does it).

    lambda moves along trajectories: each starts at a candidate (or at a random point of a continuum) with fresh
    weights, which are trained on S_train; after every `every` steps there is a point, and lambda goes one step down its
    synthetic hypergradient (appendix H). One call is one step of S_val. A new point is made at the start of every
    `repeat`-th call, from the hypergradient of the call before; the loss is the mean over the newest point and up to
    ``points - 1`` others of the last `memory`. With 1, 1 and 1 that is algorithm 1.

    What is dear at a point, the weights, their response to lambda (see `bilevel.response`) and the real hypergradient,
    does not depend on S_val: it is computed once, and a step of S_val costs the second derivatives of the validation
    loss on S_val alone.

    Args:
        space: The search space with its losses.
        train: S_train, as the space sees it.
        real: The real validation set, as the space sees it.
        generator: A CPU generator for everything random.
        learner: How weights are trained on S_train and how they answer to lambda.
        teacher: A network trained on the real training set, which then gives the real hypergradients; by default the
            one trained on S_train stands in for it, with S_train's second derivatives, as in algorithm 1.
        view: What the space is given of the synthetic batch, such as `spaces.in_folds`.
        steps: T_theta, training steps of a trajectory.
        every: T_lambda, training steps from one point to the next.
        repeat: Steps of S_val from one point to the next.
        memory: How many of the last points are kept.
        points: Over how many of them, at most, the loss is taken.
        lr_lambda: eta_lambda, of lambda's step.
        weight_decay: L2 regularisation of all training, ``weight_decay / 2 |theta|^2``, without which the training loss
            may have no minimum.
        distance: D over points.
        lr_set: eta_S, learning rate of S_val (Adam).

    Attributes:
        figures: Of the last step: the cosine at the newest point, the residual of its solves, and the norm of the
            training loss's gradient there, which is 0 at a minimum.

    Raises:
        ValueError: For numbers out of range, or one hyperparameter with a distance that cannot be descended.
    """

    space: Space
    train: Batch
    real: Validation
    generator: torch.Generator
    _: KW_ONLY
    learner: Learner = field(default_factory=Converged)
    teacher: Teacher | None = None
    view: Callable[[Batch], Batch] | None = None
    steps: int = 100
    every: int = 20
    repeat: int = 1
    memory: int = 1
    points: int = 1
    lr_lambda: float = 0.1
    weight_decay: float = 5e-4
    distance: Distance = by_point
    lr_set: float = 0.01
    figures: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _bank: list[Point] = field(default_factory=list, init=False, repr=False)
    _walk: Walk | None = field(default=None, init=False, repr=False)
    _starts: Tensor | None = field(default=None, init=False, repr=False)
    _slope: Tensor | None = field(default=None, init=False, repr=False)
    _calls: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("every", "repeat", "memory", "points"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more.")
        if self.steps < self.every:
            raise ValueError(f"A trajectory of {self.steps} steps has no point after {self.every}; give more steps.")
        if self.space.size < 2 and self.distance is by_point:
            raise ValueError(
                "The cosine of single numbers is a sign and cannot be descended; put another hyperparameter around the "
                "space, or use the distance `together`."
            )

    def __call__(self, synthetic: Synthetic) -> Tensor:
        """The distance at the points of this step."""
        batch = synthetic() if self.view is None else self.view(synthetic())
        if self._calls % self.repeat == 0:
            self._advance(next(synthetic.parameters()))  # type: ignore[attr-defined]
        self._calls += 1
        chosen = self._chosen()
        ours = [self._hypergradient(point, batch) for point in chosen]
        self._slope = ours[0].detach()
        along = [self.space.tangent(torch.stack(rows)) for rows in ([p.target for p in chosen], ours)]
        self._note(along[0][0], along[1][0].detach())
        return self.distance(*along)

    def optimizer(self, synthetic: nn.Module) -> torch.optim.Optimizer:
        """Adam on the set's parameters; the paper names none."""
        return torch.optim.Adam(synthetic.parameters(), lr=self.lr_set)

    def state_dict(self) -> dict[str, Any]:
        """The trajectory, where the next ones start, and the points that are kept."""
        return {
            "walk": None if self._walk is None else self._walk.state_dict(),
            "starts": self._starts,
            "slope": self._slope,
            "calls": self._calls,
            "bank": [point.state_dict() for point in self._bank],
            "figures": dict(self.figures),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, where the training set is."""
        state = _moved(state, self.train.y.device)
        self._walk = None if state["walk"] is None else Walk.restored(state["walk"])
        self._starts, self._slope, self._calls = state["starts"], state["slope"], state["calls"]
        self.figures = state["figures"]
        self._bank = [self._restored(**point) for point in state["bank"]]

    # --- along a trajectory

    def _advance(self, like: Tensor) -> None:
        """The next point: lines 2 to 7 of the algorithm."""
        if self._walk is None or self._walk.turn + self.every > self.steps:
            walk = self._begin(like)
        else:
            assert self._slope is not None
            lam = self._walk.lam - self.lr_lambda * self.space.tangent(self._slope.to(like))
            walk = replace(self._walk, lam=self.space.project(lam))
        pupil = self.learner.train(walk.pupil, self._training(self.generator), walk.lam, self.every)
        master = walk.master
        if self.teacher is not None and master is not None:
            loss = self._teaching(self.teacher.draw, self.generator)
            master = self.teacher.learner.train(master, loss, walk.lam, self.every * self.teacher.stride)
        walk = replace(walk, turn=walk.turn + self.every, pupil=pupil, master=master)
        point, self._walk = self._point(walk)
        self._bank = [*self._bank, point][-self.memory :]

    def _begin(self, like: Tensor) -> Walk:
        """The start of a trajectory (lines 2 and 3): the next candidate; then all of them again, in a new order."""
        if self._starts is None or len(self._starts) == 0:
            self._starts = self.space.starts(self.generator)
        lam, self._starts = self._starts[0].to(like), self._starts[1:]
        theta = self.space.init(self.generator, device=like.device).to(like.dtype)
        master = None if self.teacher is None else self.teacher.learner.start(theta)
        return Walk(lam, 0, self.learner.start(theta), master)

    def _point(self, walk: Walk) -> tuple[Point, Walk]:
        """What is computed once at a point, for as many steps of S_val as it serves."""
        seed = int(torch.randint(2**62, (), generator=self.generator))
        loss = self._training(seed)
        response, pupil = self.learner.response(walk.pupil, loss, walk.lam)
        master = walk.master
        if self.teacher is None or master is None:
            target = self._real(walk.pupil.theta, walk.lam, response, seed)
        else:
            drawn = (self.teacher.curvature or self.teacher.draw)(self.generator)
            real, master = self.teacher.learner.response(master, self._teaching(lambda _: drawn, seed), walk.lam)
            target = self._real(master.theta, walk.lam, real, seed)
        self._measure(walk, loss, response)
        point = Point(walk.lam, walk.pupil.theta, target, seed, response)
        return point, replace(walk, pupil=pupil, master=master)

    def _restored(self, *, jacobian: Tensor | None, seed: int, **held: Tensor) -> Point:
        response = self.learner.restored(jacobian, held["theta"], self._training(seed), held["lam"])
        return Point(seed=seed, response=response, **held)

    # --- losses and hypergradients

    def _training(self, random: torch.Generator | int) -> CompositeLoss:
        return self._teaching(lambda _: self.train, random)

    def _teaching(self, draw: Callable[[torch.Generator], Batch], random: torch.Generator | int) -> CompositeLoss:
        """A training loss, new at each call if given a generator, always the same if given a seed."""

        def source() -> torch.Generator:
            return random if isinstance(random, torch.Generator) else torch.Generator().manual_seed(random)

        def decay(theta: Tensor) -> Tensor:
            return 0.5 * self.weight_decay * theta.square().sum()

        def value(theta: Tensor, lam: Tensor) -> Tensor:
            generator = source()
            return self.space.training(theta, lam, draw(generator), generator) + decay(theta)

        def parts(theta: Tensor, lam: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor, Tensor], Tensor]]:
            generator, space = source(), composite(self.space)
            batch = draw(generator)
            outputs = space.outputs(theta, lam, batch, generator)
            return outputs, lambda z, t, h: space.misfit(z, t, h, batch) + decay(t)

        return CompositeLoss(value, parts)

    def _validating(self, batch: Batch, seed: int, share: float = 1.0) -> Callable[[Tensor, Tensor], Tensor]:
        """The validation loss, with the same draws on both sides."""
        return lambda t, h: share * self.space.validation(t, h, batch, torch.Generator().manual_seed(seed))

    def _real(self, theta: Tensor, lam: Tensor, response: Response, seed: int) -> Tensor:
        """The real hypergradient ``[p]``, piece by piece."""
        for_theta, direct = torch.zeros_like(theta), torch.zeros_like(lam)
        for share, batch in self.real(self.generator):
            _, g, d = slopes(self._validating(batch, seed, share), theta, lam)
            for_theta, direct = for_theta + g, direct + d
        return direct + response.pull(for_theta).detach()

    def _hypergradient(self, point: Point, batch: Batch) -> Tensor:
        """The synthetic hypergradient ``[p]``, differentiable in the synthetic set, as line 8 needs it."""
        outer = self._validating(batch, point.seed)
        _, for_theta, direct = slopes(outer, point.theta, point.lam, create_graph=True)
        return direct + point.response.pull(for_theta)

    def _chosen(self) -> list[Point]:
        """The newest point, and others drawn from those that are kept."""
        *older, newest = self._bank
        order = torch.randperm(len(older), generator=self.generator)[: self.points - 1].tolist()
        return [newest, *(older[i] for i in order)]

    def _measure(self, walk: Walk, loss: Callable[[Tensor, Tensor], Tensor], response: Response) -> None:
        leaf = walk.pupil.theta.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss(leaf, walk.lam), leaf)
        self.figures = {"training_gradient": gradient.norm(), **response.figures()}

    def _note(self, real: Tensor, ours: Tensor) -> None:
        self.figures = {**self.figures, "cosine": 1 - by_point(real[None], ours[None])}


@dataclass(frozen=True, eq=False)
class Walk:
    """A trajectory as far as it has come. It is never changed, a later state is another object.

    Attributes:
        lam: lambda ``[p]``.
        turn: Training steps made.
        pupil: The weights trained on the synthetic set.
        master: Those trained on the real one, if any.
    """

    lam: Tensor
    turn: int
    pupil: Training
    master: Training | None

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""
        master = None if self.master is None else self.master.state_dict()
        return {"lam": self.lam, "turn": self.turn, "pupil": self.pupil.state_dict(), "master": master}

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Walk:
        """From what `state_dict` gave."""
        master = None if state["master"] is None else Training(**state["master"])
        return cls(state["lam"], state["turn"], Training(**state["pupil"]), master)


def _moved(value: Any, device: torch.device) -> Any:
    """Plain data with its tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _moved(part, device) for name, part in value.items()}
    return [_moved(part, device) for part in value] if isinstance(value, list) else value
