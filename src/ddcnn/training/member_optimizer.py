"""One optimiser for M members at once, each of which is updated as if it were alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ddcnn.config import TrainingConfig
from ddcnn.training.clipping import Stack, clip_gradients, stacks_of
from ddcnn.training.distribution import Distribution
from ddcnn.training.members import TrainableMembers, slots_of
from ddcnn.training.optimizers import build_optimizer
from ddcnn.training.parameter_groups import Role, roles_of


class MemberOptimizer:
    """An element-wise optimiser of torch, with what it lacks: values that differ between members, and clipping.

    Where all members have the same values, a step is that of torch's optimiser and nothing else. Where they differ,
    torch's optimiser moves zeros instead of the parameters, at rate 1 and without decay. What it leaves is the
    direction, in which each member goes at its own rate: exact, because no state of SGD, Adam or AdamW depends on the
    rate. The decay is then applied here, as torch does it: added to the gradient (SGD, Adam), or taken from the
    parameter (AdamW).

    Parameters
    ----------
    network
        Whose members are optimised.
    config
        Optimiser, momentum and clipping, common to all members.
    own
        Per member, the configuration with its own learning rate and weight decay; None: ``config`` for each.
    distribution
        Knows the norm of a gradient that is spread over processes.
    """

    def __init__(
        self,
        network: TrainableMembers,
        config: TrainingConfig,
        own: Sequence[TrainingConfig] | None = None,
        distribution: Distribution | None = None,
    ) -> None:
        self.network, self.config, self.distribution = network, config, distribution or Distribution()
        self.own = [config] * network.members if own is None else list(own)
        assert len(self.own) == network.members
        parameters = [p for p, _ in network.per_parameter(torch.ones(network.members))]
        self._roles = dict.fromkeys(parameters, Role())
        if config.decay != "all" or config.freeze or config.layer_decay < 1:
            self._roles = roles_of(network, config)
        self._groups = list(dict.fromkeys(self._roles[p] for p in parameters))
        self.inner = build_optimizer(
            [[p for p in parameters if self._roles[p] == role] for role in self._groups], config
        )
        self._stacks = stacks_of(network)
        self.scale(torch.ones(network.members))

    def scale(self, factors: Float[Tensor, "M"]) -> None:
        """Multiply the learning rate of each member by a factor, from now on; it replaces an earlier one."""
        self.factors = factors.clone()
        decays = torch.tensor([member.weight_decay for member in self.own], dtype=torch.float64)
        self._common = float(self.rates[0])
        self._each: list[tuple[nn.Parameter, Tensor, Tensor]] = []  # empty where all members have the same values
        if (self.rates != self.rates[0]).any() or (decays != decays[0]).any():
            pairs = zip(self.network.per_parameter(self.rates), self.network.per_parameter(decays), strict=True)
            self._each = [
                (p, (rate * self._roles[p].rate).to(p), (decay * self._roles[p].decays).to(p))
                for (p, rate), (_, decay) in pairs
            ]

    @property
    def rates(self) -> Float[Tensor, "M"]:
        """The learning rate of each member, at the peak of the schedule."""
        return torch.tensor([member.peak_lr for member in self.own], dtype=torch.float64) * self.factors

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.inner.zero_grad(set_to_none=True)

    @property
    def stacks(self) -> list[Stack]:
        """The parameters of members that are stacked with each other."""
        return self._stacks

    @torch.no_grad()
    def step(self, schedule: float = 1.0, *, held: bool = False) -> None:
        """Update all members from their gradients; ``schedule`` multiplies every learning rate.

        While early layers are ``held``, they stay as they are.
        """
        if held:
            for parameter, role in self._roles.items():
                parameter.grad = None if role.early else parameter.grad
        if self.config.clip_norm is not None:
            clip_gradients(self.distribution, self._stacks, self.config.clip_norm)
        if self._each:
            self._step_each(schedule)
        else:
            for group, role in zip(self.inner.param_groups, self._groups, strict=True):
                rate = self._common * schedule * role.rate
                group.update(lr=rate, weight_decay=self.own[0].weight_decay if role.decays else 0.0)
            self.inner.step()

    def _step_each(self, schedule: float) -> None:
        moved = [(p, p.grad, rate, decay) for p, rate, decay in self._each if p.grad is not None]
        for parameter, gradient, rate, decay in moved:
            if self.config.optimizer == "adamw":
                parameter.addcmul_(parameter, rate * decay, value=-schedule)
            else:
                gradient.addcmul_(parameter, decay)
        before = [parameter.clone() for parameter, *_ in moved]
        for parameter, *_ in moved:
            parameter.zero_()
        for group in self.inner.param_groups:
            group.update(lr=1.0, weight_decay=0.0)
        self.inner.step()
        for (parameter, _, rate, _), old in zip(moved, before, strict=True):
            parameter.mul_(rate * schedule).add_(old)

    def states(self) -> list[dict[str, Tensor]]:
        """Return views of the state of each member, as ``<name of its parameter>/<what>``.

        It does not depend on whether members are stacked or run in turn, nor on who is trained beside them.
        """
        return [
            {
                f"{name}/{what}": value if what == "step" else slot.of(value)
                for name, slot in slots.items()
                for what, value in self.inner.state.get(slot.parameter, {}).items()
                if isinstance(value, Tensor)
            }
            for slots in slots_of(self.network)
        ]

    def load_states(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Copy the states of all members, which have made equally many steps.

        What they hold of parameters that are not here is left out: of a network that is spread over ranks, the state
        of the whole can be given to each.
        """
        filled: dict[nn.Parameter, dict[str, Tensor]] = {}
        for slots, state in zip(slots_of(self.network), states, strict=True):
            for key, value in state.items():
                name, _, what = key.rpartition("/")
                if name not in slots:
                    continue
                parameter = slots[name].parameter
                mine = filled.setdefault(parameter, {})
                if what == "step":
                    assert float(mine.setdefault(what, value.clone())) == float(value)
                else:
                    slots[name].of(mine.setdefault(what, torch.zeros_like(parameter))).copy_(value)
        everything: dict[str, Any] = self.inner.state_dict()
        order = [parameter for group in self.inner.param_groups for parameter in group["params"]]
        everything["state"] = {i: filled[parameter] for i, parameter in enumerate(order) if parameter in filled}
        self.inner.load_state_dict(everything)

    def subset(self, network: TrainableMembers, members: Sequence[int]) -> MemberOptimizer:
        """Return an optimiser for a network that holds some of the members, which go on as they would have here."""
        subset = MemberOptimizer(network, self.config, [self.own[n] for n in members], self.distribution)
        subset.scale(self.factors[list(members)])
        states = self.states()
        subset.load_states([states[n] for n in members])
        return subset
