"""Audit the pinned packages for known vulnerabilities with pip-audit; skip with one line where that is not possible.

pip-audit lives in an environment of its own, .venv-audit. An index that does not know a package says nothing about it:
that is told, and is no clean bill of health.
"""

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv-audit"
TOOL = "pip-audit==2.10.1"


def main() -> int:
    """Return 0 if no vulnerability is known, or nobody can be asked; 1 otherwise."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    if subprocess.run([python, "-m", "pip", "install", "-qqq", TOOL], check=False).returncode:
        return _skip(f"{TOOL} cannot be installed")
    options = [
        "--timeout",
        "10",
        "--requirement",
        ROOT / "constraints.txt",
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
    ]
    audit = subprocess.run([python, "-m", "pip_audit", *options], check=False, capture_output=True, text=True)
    try:
        return _judge(json.loads(audit.stdout)["dependencies"])
    except ValueError:
        return _skip(f"pip-audit failed: {audit.stderr.strip()[-300:]}")


def _judge(packages: list[dict[str, Any]]) -> int:
    asked = [one for one in packages if "skip_reason" not in one]
    if not asked:
        return _skip(f"the index knows none of the {len(packages)} packages")
    bad = [one for one in asked if one["vulns"]]
    for one in bad:
        for vulnerability in one["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
            print(f"{one['name']} {one['version']}: {vulnerability['id']}, fixed in {fixed}")
    print(f"audit: {len(asked)} of {len(packages)} packages are known to the index, {len(bad)} of them are vulnerable")
    return 1 if bad else 0


def _skip(reason: str) -> int:
    print(f"audit skipped: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
