"""The options of `compare` and `train`, as a table, and how they become a configuration."""

from __future__ import annotations

import copy
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ddcnn.errors import ConfigError, DdcnnError

if TYPE_CHECKING:
    from ddcnn.config import Config

SOURCES = (
    "mnist5k, cifar10, tf_flowers, mosmed, phantom[:size=128x128x64,n=200], folder:PATH, csv:PATH, npz:PATH, "
    "medmnist3d:PATH or zarr:PATH"
)
AGGREGATIONS = "dense, average, vote, weighted, attention, gated, sklearn:NAME or module:name"
CUTS = "interleaved:2x2, triangles:1x1, voronoi:6, rings:3x4, sectors:6, boxes:9, or module:function"
DATA, METHOD, TRAINING, COMPUTE, OUTPUT = "Data", "Method", "Training", "Compute", "Output"


@dataclass(frozen=True)
class Field:
    """An option that sets one field of the configuration.

    Attributes
    ----------
    option
        As it is typed, such as ``--lr``.
    field
        Dotted, such as ``training.lr``.
    kind
        Type of the value: str, which the configuration converts and judges, Path, or bool, which makes a flag.
    panel, text
        Where and how the help shows it.
    metavar
        Placeholder of the value in the help.
    bare
        The value of an option that was given without one; None: it needs one.
    read
        What makes the value of the field from what was typed.
    """

    option: str
    field: str
    kind: type
    panel: str
    text: str
    metavar: str | None = None
    bare: str | None = None
    read: Callable[[str], Any] = lambda typed: typed

    def parameter(self, *, hidden: bool = False) -> inspect.Parameter:
        """Return the parameter of a command that typer makes the option from; None when it is not given."""
        option = typer.Option(
            self.option,
            help=self.text,
            rich_help_panel=self.panel,
            metavar=self.metavar,
            show_default=False,
            hidden=hidden,
        )
        annotation: Any = Annotated[cast(Any, self.kind) | None, option]
        return inspect.Parameter(_name(self.option), _KEYWORD, default=None, annotation=annotation)


def read_costs(file: str) -> dict[str, Any]:
    """Read what mistakes cost: a mapping of true classes to mappings of decisions to costs."""
    from ddcnn.config import read_yaml

    return read_yaml(file)


_KEYWORD = inspect.Parameter.KEYWORD_ONLY

FIELDS = (
    Field("--data", "data.source", str, DATA, f"{SOURCES}; default mnist5k.", "SOURCE"),
    Field("--data-dir", "data.directory", Path, DATA, "Where the files of the data set are, or are downloaded to."),
    Field("--offline", "data.offline", bool, DATA, "Never download."),
    Field("--limit-train", "data.limit_train", str, DATA, "Use so many training images only.", "N"),
    Field("--limit-val", "data.limit_val", str, DATA, "Use so many validation images only.", "N"),
    Field("--image-size", "data.image_size", str, DATA, "Resize image files to this size: 64 or 64x48.", "HxW"),
    Field("--folds", "data.folds", str, DATA, "Cross-validate, folds x repeats: 5x2.", "FOLDS"),
    Field("--group-pattern", "data.group_pattern", str, DATA, "Of a folder: (...) in paths names a patient.", "REGEX"),
    Field("--on-bad-file", "data.on_bad_file", str, DATA, "error (default), warn or skip: leave it out.", "WORD"),
    Field("--model", "model.name", str, METHOD, "vgg9 (default), resnet20, cnn3d, lda, timm:NAME, "
          "torchvision:NAME, monai:NAME, or module:function.", "NAME"),
    Field("--grid", "decomposition.grid", str, METHOD, "Subdomains, rows x columns: 2x2 (default), 4x4, 4x1.", "GRID"),
    Field("--decomposition", "decomposition.name", str, METHOD, f"{CUTS}; default grid.", "NAME"),
    Field("--overlap", "decomposition.overlap", str, METHOD, "Pixels a subdomain grows, per side: 2 or 2x0.", "PIXELS"),
    Field("--coarse", "decomposition.coarse", str, METHOD, "One more local CNN, on the whole image reduced to this "
          "size; without a size, to that of a subimage.", "[SIZE]", "auto"),
    Field("--width-factor", "model.width_factor", str, METHOD, "Of local CNNs; default 1/sqrt(subdomains).", "X"),
    Field("--strategy", "strategy", str, METHOD, "global, local (default), coherent, transfer, compose, "
          "module:name.", "NAME"),
    Field("--init", "init.name", str, METHOD, "random (default), weights, shared, contrastive, trained, module:name.",
          "NAME"),
    Field("--weights", "init.weights", Path, METHOD, "Begin with a file (safetensors) or a run.", "FILE"),
    Field("--aggregation", "aggregation.name", str, METHOD, f"{AGGREGATIONS}; default dense.", "NAME"),
    Field("--features", "aggregation.features", str, METHOD, "probability (default), log, logit, penultimate.", "X"),
    Field("--calibrate", "aggregation.calibrate", bool, METHOD, "Calibrate probabilities (temperature scaling)."),
    Field("--threshold", "aggregation.threshold", str, METHOD, "Of decisions, chosen on the validation images: f1, "
          "youden or cost; or a number.", "RULE"),
    Field("--costs", "aggregation.costs", str, METHOD, "YAML file of what mistakes cost: ill: {healthy: 10}.", "FILE",
          read=read_costs),
    Field("--aggregate-on", "aggregation.aggregate_on", str, METHOD, "For the DNN: train, holdout, crossfit.", "PART"),
    Field("--recipe", "recipe", str, TRAINING, "fast (default), strong or paper: fills what you do not set. Of "
          "paper nothing is measured yet.", "NAME"),
    Field("--epochs", "training.epochs", str, TRAINING, "Epochs of each stage.", "N"),
    Field("--batch-size", "training.batch_size", str, TRAINING, "Images per step: auto, 128 or fewer.", "N"),
    Field("--lr", "training.lr", str, TRAINING, "Peak learning rate; auto goes with the batch size.", "X"),
    Field("--patience", "training.patience", str, TRAINING, "Stop after so many epochs without improvement.", "N"),
    Field("--augment", "training.augment", str, TRAINING, "Flip, shift, rotate as the data allow: yes or no.", "WORD"),
    Field("--class-weights", "training.class_weights", str, TRAINING, "balanced: each class counts the same.", "WORD"),
    Field("--seed", "seed", str, TRAINING, "Of everything random; default 0.", "N"),
    Field("--device", "compute.device", str, COMPUTE, "auto (default), cpu, cuda or cuda:1.", "NAME"),
    Field("--precision", "compute.precision", str, COMPUTE, "auto (default), float32 or bfloat16.", "NAME"),
    Field("--backend", "compute.backend", str, COMPUTE, "Local CNNs: auto (default), fused, vmapped, looped.", "NAME"),
    Field("--memory", "compute.memory", str, COMPUTE, "At most, such as 8GB: fewer local CNNs at once.", "SIZE"),
    Field("--engine", "compute.engine", str, COMPUTE, "in_process (default), processes, ray or module:name.", "NAME"),
    Field("--workers", "compute.workers", str, COMPUTE, "Of the engine; default one per GPU, or per core.", "N"),
    Field("--threads", "compute.threads", str, COMPUTE, "Of this process, or of each worker; default free cores.", "N"),
    Field("--ray-address", "compute.ray_address", str, COMPUTE, "auto or ray://HOST:PORT; default a new one.", "URL"),
    Field("--out", "out", Path, OUTPUT, "Folder of the run; default runs/COMMAND-DATA-MODEL-GRID-sSEED."),
    Field("--track", "track", str, OUTPUT, "Show epochs and results in tensorboard or mlflow, too.", "NAME"),
    Field("--force", "force", bool, OUTPUT, "Replace a run that is in that folder."),
)  # fmt: skip

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file, such as the config.yaml of a run.", rich_help_panel=TRAINING),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any field of the configuration; wins over all. May be repeated.",
        rich_help_panel=TRAINING,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.", rich_help_panel=OUTPUT)
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Only the result.", rich_help_panel=OUTPUT)]
ResumeOption = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        metavar="RUN",
        help="Go on with a run that was interrupted or killed. Other options are refused, except --engine, --workers, "
        "--threads, --ray-address, --data-dir, --trust, --json and --quiet.",
        rich_help_panel=OUTPUT,
    ),
]
TimeLimitOption = Annotated[
    str | None,
    typer.Option(
        "--time-limit",
        metavar="TIME",
        help="As many epochs as fit into 90s, 30m or 2h, as the plan has it; instead of --epochs.",
        rich_help_panel=TRAINING,
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan, as ddcnn plan does, and end.", rich_help_panel=OUTPUT)
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.", show_default=False)]
StrategyOption = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        metavar="NAME",
        help="Which answers: global, average, vote, cnn-dnn, coherent, transfer; default: the one that was trained, "
        "of a comparison the best on the validation images.",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="You trust who made the run: import the code that it names, use the folder of data that it names.",
        rich_help_panel=OUTPUT,
    ),
]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Where the files of the data set are, or are downloaded to.")
]
ImageSizeOption = Annotated[
    str | None, typer.Option("--image-size", metavar="HxW", help="Resize image files to this size: 64 or 64x48.")
]
BadFileOption = Annotated[
    str | None, typer.Option("--on-bad-file", metavar="WORD", help="error (default), warn or skip: leave it out.")
]
SetDataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="data.FIELD=VALUE", help="Any field of the data: data.window=[-1000,400]. May be repeated."
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, max=1024, help="Of this process; default all cores.")
]
OfflineOption = Annotated[bool, typer.Option("--offline", help="Never download.")]


@dataclass(frozen=True)
class Given:
    """What was typed: the values of options, by dotted field of the configuration, and the whole line."""

    fields: dict[str, Any]
    line: str


def with_fields(
    fields: Sequence[Field], *, hidden: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command these options; its first parameter receives a `Given`.

    ``hidden`` options are taken, but the help does not show them.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        _, *others = inspect.signature(command, eval_str=True).parameters.values()

        def shell(**values: Any) -> None:
            line = shlex.join(["ddcnn", *(values.pop("context").obj or sys.argv[1:])])
            typed = {f: value for f in fields if (value := values.pop(_name(f.option))) is not None}
            given = {f.field: f.read(value) for f, value in typed.items()}
            command(Given(given, line), **values)

        context = inspect.Parameter("context", _KEYWORD, annotation=typer.Context)
        options = (field.parameter(hidden=field.option in hidden) for field in fields)
        signature = inspect.Signature([context, *options, *others])
        shell.__signature__ = signature  # type: ignore[attr-defined]
        shell.__name__, shell.__doc__ = command.__name__, command.__doc__
        return shell

    return decorate


def build_config(given: Mapping[str, Any], file: Path | None, assignments: Sequence[str]) -> Config:
    """Return the configuration: recipe, then file, then options, then ``--set``; the later one wins.

    ``force`` is not taken from the file: to replace a run is said anew each time.

    Raises
    ------
    ConfigError
        One line, in terms of the options that were given.
    """
    from ddcnn.config import Config, assign, read_yaml

    values = {} if file is None else read_yaml(file)
    values.pop("force", None)
    values = put(values, given)
    for assignment in assignments:
        assign(values, assignment)
    return Config.parse(values)


def put(values: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values with dotted fields set.

    >>> put({"training": {"lr": 0.1}}, {"training.epochs": 3, "seed": 1})
    {'training': {'lr': 0.1, 'epochs': 3}, 'seed': 1}
    """
    result: dict[str, Any] = copy.deepcopy(dict(values))
    for dotted, value in fields.items():
        *parents, name = dotted.split(".")
        section = result
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                section[parent] = {}
            section = section[parent]
        section[name] = value
    return result


@contextmanager
def in_words_of_options(given: Mapping[str, Any], assignments: Sequence[str] = ()) -> Iterator[None]:
    """Name the option instead of the field in errors: ``--epochs 0 is not valid``."""
    try:
        yield
    except DdcnnError as error:
        for field in FIELDS:
            start = re.match(rf"{re.escape(field.field)}(\.\d+)? = ", str(error))
            if start and field.field in given and field.field not in assigned(assignments):
                raise type(error)(f"{field.option} {str(error)[start.end() :]}") from None
        raise


def seconds_of(time_limit: str | None) -> float | None:
    """Return a time limit in seconds.

    >>> seconds_of("90s"), seconds_of("30m"), seconds_of("1.5h"), seconds_of(None)
    (90.0, 1800.0, 5400.0, None)
    """
    if time_limit is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *([smh]?)", time_limit.strip().lower())
    if found is None or not float(found[1]):
        raise ConfigError(f"--time-limit {time_limit:.40} should be a time, such as 90s, 30m or 2h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def assigned(assignments: Sequence[str]) -> set[str]:
    """Return the fields that ``--set FIELD=VALUE`` sets, and their sections.

    >>> sorted(assigned(["seed=1", "training={lr: 0.1}"]))
    ['seed', 'training', 'training.lr']
    """
    from ddcnn.config import assign

    values: dict[str, Any] = {}
    for assignment in assignments:
        assign(values, assignment)
    return set(_dotted(values, ""))


def _dotted(values: Mapping[str, Any], before: str) -> Iterator[str]:
    for name, value in values.items():
        yield f"{before}{name}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{before}{name}.")


def without_epochs(given: Mapping[str, Any], assignments: Sequence[str], time_limit: str | None) -> None:
    """Raise a `ConfigError` if both a time limit and a number of epochs were given."""
    if time_limit is not None and "training.epochs" in {*given, *assigned(assignments)}:
        raise ConfigError("--time-limit chooses the number of epochs; leave out --epochs, or training.epochs")


def completed(arguments: Sequence[str]) -> list[str]:
    """Return what was typed, with the value of options that may be given without one.

    >>> completed(["train", "--coarse", "--epochs", "3"]), completed(["train", "--coarse", "8x8"])
    (['train', '--coarse', 'auto', '--epochs', '3'], ['train', '--coarse', '8x8'])
    """
    values = {field.option: field.bare for field in FIELDS if field.bare is not None}
    found: list[str] = []
    for argument, following in zip(arguments, [*arguments, "-"][1:], strict=True):
        found.append(argument)
        if argument in values and following.startswith("-"):
            found.append(values[argument])
    return found


def _name(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")
