import importlib.util
import json
from pathlib import Path

import pytest

_PATH = Path(__file__).with_name("make_golden.py")
_SPEC = importlib.util.spec_from_file_location("make_golden", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
make_golden = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_golden)


@pytest.mark.parametrize("name", make_golden.CASES)
def test_losses_are_the_golden_ones(name):
    golden = json.loads(make_golden.GOLDEN.read_text())["losses"][name]
    found = make_golden.losses(make_golden.CASES[name])
    assert found.keys() == golden.keys()
    for stage, expected in golden.items():
        assert found[stage] == pytest.approx(expected, rel=1e-3, abs=1e-4), stage
