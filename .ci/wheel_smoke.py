"""Build the sdist, and from it the wheel, into dist/; try the wheel where only what it declares to need is installed.

The environment for that is made beside the present one, whose packages it links to: those that the wheel's metadata ask
for without an extra, and what these need. So a dependency that was forgotten is missed, and nothing is downloaded.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from email import message_from_bytes
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
OPTIONAL = ("ray", "captum", "onnx", "zarr", "nibabel", "mlxtend", "tensorboard", "mlflow", "gradio", "pytest")

TRY = f"""
import sys
from importlib.util import find_spec
from pathlib import Path

import ddcnn

assert "torch" not in sys.modules, "import ddcnn imports torch"
assert not [name for name in {OPTIONAL} if find_spec(name)], "an optional package is to be seen"
assert Path(ddcnn.__file__).with_name("py.typed").is_file()
assert Path(ddcnn.__file__).is_relative_to(sys.prefix), ddcnn.__file__

import numpy as np

labels = np.arange(60) % 2
images = np.random.default_rng(0).integers(0, 100, (60, 16, 16)) + 100 * labels[:, None, None]
np.savez("images.npz", images=images.astype(np.uint8))
config = ddcnn.Config.parse({{
    "data": {{"limit_train": 40}}, "model": {{"width_factor": 0.05}}, "training": {{"epochs": 1, "batch_size": 20}},
    "aggregation": {{"epochs": 1, "hidden": [4]}}, "out": "run",
    "compute": {{"precision": "float32", "backend": "looped"}},
}})
names = [row["name"] for row in ddcnn.compare(config, (images.astype(np.uint8), labels)).results["strategies"]]
assert names == ["global", "average", "vote", "cnn-dnn", "coherent", "transfer"], names
probabilities = ddcnn.load("run", "cnn-dnn").predict_proba(images.astype(np.uint8))
assert probabilities.shape == (60, 2) and np.allclose(probabilities.sum(1), 1, atol=1e-5)
"""

COMMANDS = {
    ("--version",): "ddcnn {version}",
    ("doctor",): "pip install 'ddcnn[ray]'",
    ("predict", "run", "images.npz", "--strategy", "cnn-dnn"): "images.npz[59]",
    ("report", "run"): "report: run/report.html",
}
REFUSED = {
    ("explain", "run", "images.npz"): "pip install 'ddcnn[explain]'",
    ("export", "run", "--format", "onnx"): "pip install 'ddcnn[export]'",
    ("compare", "--data", "mnist5k", "--out", "digits"): "pip install 'ddcnn[demo]'",
    ("app", "run"): "pip install 'ddcnn[app]'",
}


def main() -> None:
    """Build, look into the wheel, and try it; the first thing that is not as it should be ends the program."""
    wheel = build()
    with tempfile.TemporaryDirectory(prefix="ddcnn-wheel-") as folder:
        python, version = Path(folder) / "env" / "bin" / "python", install(wheel, Path(folder) / "env")
        said([python, "-I", "-W", "error::DeprecationWarning:ddcnn", "-c", TRY], folder)
        program = python.with_name("ddcnn")
        for arguments, expected in COMMANDS.items():
            expect(expected.format(version=version), said([program, *arguments], folder))
        for arguments, expected in REFUSED.items():
            expect(expected, said([program, *arguments], folder, code=2))
    print(f"{wheel.relative_to(ROOT)} works with what it declares to need")


def build() -> Path:
    """Build the sdist from this folder, and the wheel from the sdist; return the wheel."""
    for old in DIST.glob("ddcnn-*"):
        old.unlink()
    said([sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST, ROOT], ROOT)
    (wheel,) = DIST.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    ours = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "ddcnn").rglob("*") if path.is_file()}
    forgotten = sorted(name for name in ours - packed if "__pycache__" not in name)
    if forgotten:
        raise SystemExit(f"not in the wheel: {', '.join(forgotten)}; see package-data in pyproject.toml")
    return wheel


def install(wheel: Path, environment: Path) -> str:
    """Make an environment with the wheel and links to what it declares to need; return the wheel's version."""
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    said([sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel], ROOT)
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))
    site = next((environment / "lib").glob("python*/site-packages"))
    waiting, linked = list(metadata.get_all("Requires-Dist", [])), set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in (*requirement.extras, "")
        )
        if not wanted or name in linked:
            continue
        linked.add(name)
        waiting += link(name, site)
    return str(metadata["Version"])


def link(name: str, site: Path) -> list[str]:
    """Link an installed package into another environment; return what it needs."""
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise SystemExit(f"{name} is declared as needed, but is not installed here") from None
    here = Path(str(found.locate_file("")))
    for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
        if not (site / top).exists():
            (site / top).symlink_to(here / top)
    return found.requires or []


def said(command: list[object], folder: object, code: int = 0) -> str:
    """Run a command that is to end with a code; return all that it printed."""
    done = subprocess.run([str(part) for part in command], check=False, cwd=str(folder), capture_output=True, text=True)
    if done.returncode != code:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def expect(part: str, text: str) -> None:
    """End the program if a text does not hold a part; a table may have wrapped it."""
    if re.sub(r"\s+", " ", part) not in re.sub(r"\s+", " ", text):
        raise SystemExit(f"expected {part!r}, got:\n{text}")


if __name__ == "__main__":
    main()
