"""Names of strategies, aggregations, decompositions and engines: known, unknown, and of the user's own."""

from __future__ import annotations

import pytest

import ddcnn
from ddcnn.aggregation import AGGREGATIONS
from ddcnn.cli.options import FIELDS
from ddcnn.config import Config
from ddcnn.decomposition import DECOMPOSITIONS
from ddcnn.engines import ENGINES
from ddcnn.models import MODELS
from ddcnn.registry import Registry
from ddcnn.strategies import STRATEGIES
from ddcnn.strategies.initialization import INITIALIZATIONS

REGISTRIES = {
    "--strategy": STRATEGIES,
    "--aggregation": AGGREGATIONS,
    "--decomposition": DECOMPOSITIONS,
    "--engine": ENGINES,
    "--model": MODELS,
    "--init": INITIALIZATIONS,
}


@pytest.mark.parametrize("option", REGISTRIES)
def test_the_help_names_all(option: str) -> None:
    (field,) = [field for field in FIELDS if field.option == option]
    assert all(name in field.text for name in REGISTRIES[option])
    assert "module:" in field.text


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=REGISTRIES)
def test_bad_names(registry: Registry) -> None:
    first = next(iter(registry))
    with pytest.raises(ddcnn.DdcnnError, match=f"'{first}x' is unknown: did you mean '{first}'"):
        registry.find(f"{first}x")
    with pytest.raises(ddcnn.DdcnnError, match="cannot be imported: No module named 'no_such_module'"):
        registry.find("no_such_module:thing")
    with pytest.raises(ddcnn.DdcnnError, match="there is already a"):
        registry[first] = registry[first]


def test_an_unknown_strategy_is_told_before_data_are_read(tmp_path: object) -> None:
    config = Config.parse({"strategy": "globl", "data": {"source": "npz:nowhere.npz"}, "out": tmp_path})
    with pytest.raises(ddcnn.DdcnnError, match="strategy 'globl' is unknown: did you mean 'global'"):
        ddcnn.train(config)
