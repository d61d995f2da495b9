import io
import re

import pytest
from rich.console import Console

from ddcnn.errors import RunError
from ddcnn.report import comparison_table, rich_table

RESULTS = {
    "strategies": [
        {"name": "transfer", "test_accuracy": 0.99, "parameters": 302000, "seconds": 83.5, "epochs": 20},
        {"name": "global", "test_accuracy": 0.988, "train_accuracy": None, "peak_memory_bytes": 310 * 2**20},
        {"name": "cnn-dnn", "test_accuracy": 0.99},
    ]
}


def test_markdown():
    assert comparison_table(RESULTS).splitlines() == [
        "| strategy | test accuracy (%) | validation accuracy (%) | training accuracy (%) | parameters | epochs "
        "| time (s) | critical path (s) | peak memory (MiB) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| global CNN | 98.8 | - | - | - | - | - | - | 310 |",
        "| CNN-DNN | **99.0** | - | - | - | - | - | - | - |",
        "| transfer | **99.0** | - | - | 302,000 | 20 | 83.5 | - | - |",
    ]


def test_terminal():
    console = Console(width=120, file=io.StringIO(), record=True, force_terminal=True)
    console.print(rich_table(RESULTS))
    text = console.export_text(clear=False)
    assert "global CNN" in text
    assert "302,000" in text
    assert re.search(r"\x1b\[1m *99\.0", console.export_text(styles=True))


def test_terminal_does_not_read_markup():
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(rich_table({"strategies": [{"name": "[red]mine"}]}))
    assert "[red]mine" in console.export_text()


def test_fits_a_terminal_of_100_columns():
    console = Console(width=100, file=io.StringIO(), record=True)
    row = {"name": "global", "test_accuracy": 1.0, "parameters": 11_173_962, "seconds": 12345.6, "epochs": 200}
    console.print(rich_table({"strategies": [row | {"critical_path_seconds": 12345.6, "peak_memory_bytes": 2**33}]}))
    text = console.export_text()
    assert all(part in text for part in ("11,173,962", "12,346", "8,192"))
    assert "…" not in text


def test_no_strategies():
    assert len(comparison_table({}).splitlines()) == 2


@pytest.mark.parametrize("value", ["much", 1.5, -0.1])
def test_bad_number_is_named(value):
    with pytest.raises(RunError, match=r"comparison.json: strategies.0.test_accuracy = .* cannot be used"):
        comparison_table({"strategies": [{"name": "vote", "test_accuracy": value}]})
