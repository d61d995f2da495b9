"""The command line: `ddcnn compare`, `train`, `plan`, `evaluate`, `predict`, `explain`, `export`, `experiment`, ...

torch is imported inside the commands only, so that ``ddcnn --help`` is fast.
"""

from __future__ import annotations

import importlib.metadata
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from ddcnn.atomic import advice
from ddcnn.cli import (
    config,
    data,
    doctor,
    evaluate,
    experiment,
    explain,
    export,
    plan,
    predict,
    prepare,
    run_commands,
    web,
)
from ddcnn.cli.flags import show_flags_alone
from ddcnn.cli.neighbours import of_command, of_option
from ddcnn.cli.options import completed
from ddcnn.cli.streams import endure, escaped_warnings, lost, without_colors
from ddcnn.errors import DdcnnError, EndedError, InterruptionError, in_one_line, is_out_of_memory
from ddcnn.registry import where
from ddcnn.text import printable

__all__ = ["app", "main"]

app = typer.Typer(
    name="ddcnn",
    help="Train image and volume classifiers by domain decomposition: one small CNN per subdomain.",
    epilog="Start with: ddcnn compare --data mnist5k --epochs 8",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
run_commands.add_to(app)
plan.add_to(app)
config.add_to(app)
evaluate.add_to(app)
predict.add_to(app)
explain.add_to(app)
export.add_to(app)
web.add_to(app)
doctor.add_to(app)
experiment.add_to(app)
prepare.add_to(data.app)
app.add_typer(data.app, name="data")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, or 2 after one line on stderr that says what to do.

    1 if the work is done, but not all of the answer could be given or printed. 130 if interrupted by Ctrl-C, 75
    (EX_TEMPFAIL) by SIGTERM or SIGUSR1: what was done is in the run's checkpoints. Progress that cannot be shown
    changes neither the work nor the code.

    Parameters
    ----------
    arguments
        Without the name of the program; None takes those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    endure()
    try:
        with escaped_warnings():
            code = _invoke(arguments)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except SystemExit as end:
        if not (place := where(end)):  # such as a completion for the shell
            raise
        _say(f"{in_one_line(end)}{place}; leave that out")
        code = 2
    except InterruptionError as error:
        code = 130 if error.signal == signal.SIGINT else 75
    except Exception as error:
        message = _message(error, arguments)
        if message is None:
            raise
        if not isinstance(error, EndedError):  # another rank has said it
            _say(message)
        code = 2
    if (loss := lost()) is not None and code == 0:
        if not isinstance(loss, BrokenPipeError):  # who reads our output has seen enough
            _say(f"stdout cannot be written: {loss.strerror}; the work itself is done")
        code = 1
    if code in (75, 130) and os.environ.get("RANK", "0") == "0":
        print("interrupted", file=sys.stderr)
    sys.exit(code)


def _invoke(arguments: list[str]) -> int:
    without_colors()
    command = show_flags_alone(typer.main.get_command(app))
    typed = completed(arguments) or ["--help"]
    result = command.main(typed, prog_name="ddcnn", standalone_mode=False, obj=arguments)
    return result if isinstance(result, int) else 0


def _say(message: str) -> None:
    print(f"error: {_rank()}{printable(' '.join(message.split()))}", file=sys.stderr)


def _rank() -> str:
    """Return which of several ranks this is: ``rank 1 of 4: ``."""
    count = os.environ.get("WORLD_SIZE", "1")
    return "" if count == "1" else f"rank {os.environ.get('RANK', '?')} of {count}: "


def _message(error: Exception, arguments: Sequence[str]) -> str | None:
    """Return the line for an error that the user can do something about; None for a bug."""
    if isinstance(error, DdcnnError):
        return str(error)
    command, path = _command(arguments)
    if hasattr(error, "format_message"):  # of typer, or of click for older versions of typer
        return f"{_usage(error, command).rstrip('.')}; see {path} --help"
    if isinstance(error, OSError) and error.errno is not None:  # of the file system, where no better line was found
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"{' and '.join(names) or 'a file'} cannot be used: {advice(error)}"
    if is_out_of_memory(error):
        ways = {"--batch-size": "a smaller --batch-size", "--limit-train": "fewer images (--limit-train)"}
        ways |= {"--image-size": "a smaller --image-size", "--memory": "a limit (--memory)"}
        can = [way for option, way in ways.items() if option in _options(command)]
        return f"not enough memory; {'use ' + ' or '.join(can) if can else 'end other programs, or give fewer images'}"
    if place := where(error):  # of the user's own code
        return f"{type(error).__name__}: {in_one_line(error)}{place}"
    return None


def _usage(error: Any, command: Any) -> str:
    """Return what is wrong with a command line, and what was meant."""
    if option := getattr(error, "option_name", None) if hasattr(error, "possibilities") else None:
        return of_option(option, _options(command))
    message = str(error.format_message())
    return of_command(message, getattr(command, "commands", ())) or message


def _command(arguments: Sequence[str]) -> tuple[Any, str]:
    """Return the command that was meant, as far as there is one, and how it is called."""
    command: Any = typer.main.get_command(app)
    path = "ddcnn"
    for word in arguments:
        inside = getattr(command, "commands", {})
        if word not in inside:
            break
        command, path = inside[word], f"{path} {word}"
    return command, path


def _options(command: Any) -> list[str]:
    return [option for parameter in command.params for option in parameter.opts if option.startswith("--")]


def _print_version(wanted: bool) -> bool:
    if wanted:
        print("ddcnn", importlib.metadata.version("ddcnn"))
        raise typer.Exit
    return wanted


@app.callback()
def _ddcnn(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
