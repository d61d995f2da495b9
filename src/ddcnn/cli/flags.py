"""Flags in the help: `--force`, not `--force <bool>`, which reads as if a value were needed."""

from __future__ import annotations

from typing import Any


def show_flags_alone(command: Any) -> Any:
    """Let the help of a command, and of those in it, show flags without a placeholder; return the command.

    The parameters are looked at when the help asks for them: ``--help`` itself is not there before.
    """
    of_command = command.get_params

    def get_params(context: Any) -> list[Any]:
        found: list[Any] = of_command(context)
        for parameter in found:
            if getattr(parameter, "is_flag", False):
                parameter.metavar = ""
        return found

    command.get_params = get_params
    for inside in getattr(command, "commands", {}).values():
        show_flags_alone(inside)
    return command
