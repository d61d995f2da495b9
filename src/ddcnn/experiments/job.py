"""What a job trains, `compare` or `train`: which strategies, and under which aggregations local CNNs decide."""

from __future__ import annotations

from typing import NamedTuple

from ddcnn.aggregation import AGGREGATIONS
from ddcnn.config import Config
from ddcnn.errors import ConfigError
from ddcnn.strategies import STRATEGIES, needed_for

_COMPARED = ("average", "vote", "dense")


class Job(NamedTuple):
    """What is trained.

    Attributes
    ----------
    name
        ``"compare"`` or ``"train"``.
    strategies, aggregations
        By their names.
    """

    name: str
    strategies: tuple[str, ...]
    aggregations: tuple[str, ...]

    @classmethod
    def of(cls, name: str, config: Config) -> Job:
        """Return what a configuration asks for.

        >>> Job.of("train", Config(strategy="transfer"))
        Job(name='train', strategies=('transfer',), aggregations=('dense',))
        """
        aggregation = config.aggregation.name
        if name == "train":
            return cls(name, (config.strategy,), (aggregation,))
        compared = tuple(one for one, strategy in STRATEGIES.items() if strategy.compared)
        return cls(name, compared, tuple(dict.fromkeys([*_COMPARED, aggregation])))

    @property
    def whole_images(self) -> list[str]:
        """What is trained on whole images: the global CNN, the coherent model, or neither."""
        trained = dict.fromkeys(STRATEGIES.find(name).trains for name in needed_for(list(self.strategies)))
        return [what for what in trained if what != "subdomains"]

    def check(self, config: Config) -> None:
        """Raise a `ConfigError` if the strategies cannot be trained as the configuration says."""
        strategies = [STRATEGIES.find(name) for name in needed_for(list(self.strategies))]
        aggregation = AGGREGATIONS.find(config.aggregation.name)
        for strategy in strategies:
            if strategy.trains == "coherent" and not aggregation.differentiable:
                raise ConfigError(
                    f"a {strategy.label} model cannot be trained through {config.aggregation.name}: no gradient; use "
                    f"dense or average"
                )
        if config.training.subdomains and all(strategy.trains != "subdomains" for strategy in strategies):
            raise ConfigError(
                f"training.subdomains is for local CNNs, but strategy {config.strategy} trains one model; leave it "
                f"out, or use local or transfer"
            )
