"""Print the test files that uncommitted changes concern: those of the changed folders, and those beside this file.

python tests/concerned.py [BASE]     # changes against a commit; without it, against HEAD
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Print them."""
    base = sys.argv[1] if len(sys.argv) > 1 else "HEAD"
    changed = subprocess.run(["git", "diff", "--name-only", base], cwd=ROOT, capture_output=True, text=True, check=True)
    new = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = (changed.stdout + new.stdout).splitlines()
    found = {path for name in names for path in concerned(Path(name)) if (ROOT / path).exists()}
    print(*sorted(map(str, found)))


def concerned(path: Path) -> list[Path]:
    """Return the tests of a file: itself, those of its folder, or those of no folder, which also read the pages."""
    if path.parts[0] == "tests" and path.name.startswith("test_"):
        return [path]
    if path.parts[0] == "tests" and len(path.parts) > 2:
        return [Path("tests", path.parts[1])]
    if path.parts[:2] == ("src", "ddcnn") and len(path.parts) > 3:
        folder = Path("tests", path.parts[2])
        return [one for one in (folder, folder.with_name(f"test_{folder.name}.py")) if (ROOT / one).exists()]
    if path.parts[:2] == ("src", "ddcnn") or path.suffix == ".md":
        return sorted(p.relative_to(ROOT) for p in (ROOT / "tests").glob("test_*.py"))
    return []


if __name__ == "__main__":
    main()
