"""A controller that learns by policy gradients which configurations are good: GraphNAS's search."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from condensery.net import Net
from condensery.search.settings import Config, Infeasible, Settings, Value, When


class _Decision(NamedTuple):
    """What was decided: which decision of the space, which choice, of how many."""

    name: str
    choice: int
    choices: int


class Reinforce:
    """An LSTM decides one setting after the other and learns from the scores by REINFORCE.

    Gao et al., Graph Neural Architecture Search (IJCAI 2020, https://arxiv.org/abs/1904.09981, section 3.2, equation
    5), after Zoph & Le and ENAS: the policy gradient of ``(R - b) sum_t log p(a_t | a_<t)`` with a moving average b of
    the rewards, plus the entropy of the decisions. Each decision of the space has a vector of its own for each choice
    and a linear layer for its logits; the LSTM is given the choice made before. Ranges are cut into levels. Settings
    that do not matter in a configuration are not decided.

    The published learning rate, 3.5e-4, is for thousands of trials; the default is for a hundred.

    Args:
        space: What is searched.
        generator: A CPU generator, for the initialisation and the decisions.
        levels: Values of a range.
        width: Of the LSTM and the vectors; GraphNAS has 100.
        lr: Of Adam.
        decay: Of the moving average: ``b = decay b + (1 - decay) R`` (0.95 published). It starts at the first reward.
        entropy: Weight of the entropy.
        exploration: Logits are ``c tanh(logits / c)`` with this c (2.5 published), so that no choice ever becomes
            certain.
        penalty: What a configuration without a score counts as, below the baseline.

    Raises:
        ValueError: If a number makes no sense.
    """

    def __init__(
        self,
        space: Settings,
        generator: torch.Generator,
        *,
        levels: int = 5,
        width: int = 64,
        lr: float = 0.01,
        decay: float = 0.9,
        entropy: float = 1e-3,
        exploration: float = 2.5,
        penalty: float = 0.1,
    ) -> None:
        if not (0 <= decay < 1 and lr > 0 and entropy >= 0 and exploration > 0 and levels > 0 and width > 0):
            raise ValueError("A controller needs lr, width, levels and exploration above 0, and decay in [0, 1).")
        self.space, self.generator, self.levels = space, generator, levels
        self.lr, self.decay, self.entropy, self.exploration, self.penalty = lr, decay, entropy, exploration, penalty
        self.baseline: float | None = None
        self._policy = _policy(space, generator, levels, width)
        self._optimizer = torch.optim.Adam(self._policy.parameters(), lr=lr)
        self._made: list[_Decision] = []

    def ask(self) -> Config:
        """A configuration drawn from the policy."""
        while True:
            self._made = []
            try:
                with torch.no_grad():
                    return self._drawn()
            except Infeasible:
                self._learn(None)  # the policy learns to leave such alone, at no cost

    def tell(self, config: Config, score: float | None) -> None:
        """One step along the policy gradient of the last configuration."""
        self._learn(score)

    def _drawn(self) -> Config:
        state, last = self._policy.start(), self._policy.first

        def pick(name: str, choices: tuple[Value, ...]) -> Value:
            nonlocal state, last
            logits, state = self._policy.step(name, len(choices), last, state, self.exploration)
            drawn = int(torch.multinomial(logits.softmax(0), 1, generator=self.generator))
            last = self._policy.vector(name, drawn)
            self._made.append(_Decision(name, drawn, len(choices)))
            return choices[drawn]

        return self.space.choose(pick, levels=self.levels)

    def _learn(self, score: float | None) -> None:
        if self.baseline is None and score is not None:
            self.baseline = score
        advantage = -self.penalty if score is None else score - (self.baseline or 0.0)
        log_probability, entropy = self._likelihood()
        self._optimizer.zero_grad(set_to_none=True)
        (-advantage * log_probability - self.entropy * entropy).backward()
        self._optimizer.step()
        if score is not None and self.baseline is not None:
            self.baseline = self.decay * self.baseline + (1 - self.decay) * score

    def _likelihood(self) -> tuple[Tensor, Tensor]:
        """The log-probability of the last decisions, and the entropy of what they were drawn from."""
        state, last = self._policy.start(), self._policy.first
        total, entropy = torch.zeros(()), torch.zeros(())
        for name, choice, count in self._made:
            logits, state = self._policy.step(name, count, last, state, self.exploration)
            logs = logits.log_softmax(0)
            total, entropy = total + logs[choice], entropy - (logs.exp() * logs).sum()
            last = self._policy.vector(name, choice)
        return total, entropy


class _Policy(nn.Module):
    """Logits of each decision, given those before."""

    def __init__(self, counts: dict[str, int], width: int) -> None:
        super().__init__()
        self.place = {name: str(k) for k, name in enumerate(counts)}  # a module's name has no dots
        self.cell = nn.LSTMCell(width, width)
        self.heads = nn.ModuleDict({self.place[name]: nn.Linear(width, count) for name, count in counts.items()})
        self.vectors = nn.ModuleDict({self.place[name]: nn.Linear(count, width) for name, count in counts.items()})
        self.register_buffer("first", torch.zeros(width))
        self.first: Tensor

    def start(self) -> tuple[Tensor, Tensor]:
        """The LSTM's first state."""
        return torch.zeros_like(self.first)[None], torch.zeros_like(self.first)[None]

    def step(
        self, name: str, count: int, last: Tensor, state: tuple[Tensor, Tensor], bound: float
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Logits ``[count]`` of a decision and the next state."""
        state = self.cell(last[None], state)
        logits = self.heads[self.place[name]](state[0])[0]
        return bound * torch.tanh(logits[:count] / bound), state

    def vector(self, name: str, choice: int) -> Tensor:
        """What the LSTM is told of a choice."""
        linear = self.vectors[self.place[name]]
        assert isinstance(linear, nn.Linear)
        return linear.weight[:, choice] + linear.bias


def _policy(space: Settings, generator: torch.Generator, levels: int, width: int) -> _Policy:
    """A policy for all decisions of a space, initialised by the generator."""
    counts: dict[str, int] = {}

    def note(name: str, choices: tuple[Value, ...]) -> Value:
        counts[name] = len(choices)
        return choices[0]

    for name, entry in space.parameters.items():
        parameter = entry.parameter if isinstance(entry, When) else entry
        try:
            parameter.choose(name, note, levels)
        except Infeasible:
            continue  # its decisions were noted before it was found to make nothing
    with torch.random.fork_rng(devices=[]):
        template = _Policy(counts, width)
    net = Net(template)
    trained = net.at(net.init(generator))
    assert isinstance(trained, _Policy)
    return trained
