"""What a store holds and where: the attributes of its root, from which everything else follows.

::

    zarr.json                   attributes "ddcnn": a `Layout`, and the SHA-256 of it
    subdomains/<n>              (samples, C, *s)    one sample per chunk, ``shard`` samples per shard
    labels                      (samples,)          int64
    moments                     (samples, C, 4)     float64: sum, sum of squares, minimum, maximum
    official_test               (m,)                int64: samples set aside by the publisher; may be absent
    official_validation         (v,)                the same for the validation
    content                     (samples, 16)       uint8: the digest of each whole image, as in `ddcnn.data.content`
    sha256                      (N, samples, 32)    uint8: of each chunk as it is in its shard

Version 1, which is still read, has no ``content``, and nothing of what is listed in `Layout` as known since version 2.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ddcnn.config import Resize
from ddcnn.data.files import open_regular
from ddcnn.decomposition import Box, Grid
from ddcnn.errors import DataError, DdcnnError

VERSION: Literal[2] = 2
VERSIONS = (1, 2)
SINCE_2 = ("notes", "bad_files", "window", "label_groups", "resized", "resize", "groups", "layout", "label_kind")
_IF_KNOWN = ("layout", "label_kind")
ROOT = "zarr.json"
ATTRIBUTE = "ddcnn"
MOST_JSON = 2**24  # bytes
_MOST_PIXELS = 2**33  # per image and channel; a declared size is believed only below
_MOST_SUBDOMAINS = 2**16

_Count = Annotated[int, Field(ge=1, lt=2**40)]
_Counts = Annotated[tuple[_Count, ...], Field(min_length=2, max_length=3)]


class Layout(BaseModel):
    """The description of a store.

    Attributes
    ----------
    name, classes, flip_axes, shift, rotation, plane, crop, source
        As in `ddcnn.data.Dataset`.
    samples, image_shape, type
        n, (C, *S), and ``"uint8"`` or ``"float32"``.
    grid, overlap
        Subdomains per axis, and the pixels that each is stored beyond its own, per axis and side.
    shard
        Samples per shard.
    official_test, official_validation
        How many samples the publisher set aside; None: there is no such set.
    notes, bad_files, window, label_groups, resized, resize
        As in `ddcnn.data.Dataset`, of a bad file its name and the reason; known since version 2.
    layout, label_kind
        As in `ddcnn.data.Dataset`; stores made before 2026-11-27 do not say them, and a store of which they are None
        is written as those are.
    groups
        Whether it says which samples belong together.
    provenance
        Command, versions and configuration that made the store.
    sha256
        Of the content of the small arrays, by name; once the store is complete, of `written` as well.
    complete
        Whether every sample is there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    version: Literal[1, 2] = VERSION
    name: str
    samples: _Count
    image_shape: Annotated[tuple[_Count, ...], Field(min_length=3, max_length=4)]
    type: Literal["uint8", "float32"]
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    flip_axes: tuple[Annotated[int, Field(ge=0, lt=3)], ...]
    shift: Annotated[int, Field(ge=0)]
    rotation: Annotated[float, Field(ge=0, le=180)]
    plane: tuple[Annotated[int, Field(ge=-3, lt=3)], Annotated[int, Field(ge=-3, lt=3)]]
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    source: dict[str, str]
    grid: _Counts
    overlap: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2, max_length=3)]
    shard: Annotated[int, Field(ge=1, le=2**20)]
    official_test: Annotated[int, Field(ge=1)] | None
    official_validation: Annotated[int, Field(ge=1)] | None
    notes: tuple[str, ...] = ()
    bad_files: tuple[tuple[str, str], ...] = ()
    window: tuple[float, float] | None = None
    label_groups: dict[str, tuple[str, ...]] | None = None
    resized: bool = False
    resize: Resize | None = None
    groups: bool = False
    layout: Annotated[str, Field(pattern=r"^N[CDHW]{2,4}$")] | None = None
    label_kind: str | None = None
    provenance: dict[str, Any]
    sha256: dict[str, str]
    complete: bool = False

    @property
    def channels(self) -> int:
        """C."""
        return self.image_shape[0]

    @property
    def image_size(self) -> tuple[int, ...]:
        """(H, W) or (D, H, W)."""
        return self.image_shape[1:]

    @property
    def item(self) -> int:
        """Bytes of a number."""
        return 1 if self.type == "uint8" else 4

    @cached_property
    def cores(self) -> tuple[Box, ...]:
        """The box of each subdomain without overlap: together the image."""
        return tuple(s.box for s in Grid(self.grid).subdomains(self.image_size))

    @cached_property
    def boxes(self) -> tuple[Box, ...]:
        """The box of each subdomain as it is stored."""
        return tuple(s.box for s in self._grid)

    @cached_property
    def _grid(self) -> tuple[Any, ...]:
        return Grid(self.grid, overlap=self.overlap).subdomains(self.image_size)

    @property
    def has_content(self) -> bool:
        """Whether the digests of whole images are there."""
        return self.version > 1

    @property
    def blocks(self) -> int:
        """Number of shards of each subdomain."""
        return math.ceil(self.samples / self.shard)

    def block(self, b: int) -> range:
        """Return the samples of block b."""
        return range(b * self.shard, min((b + 1) * self.shard, self.samples))

    def chunk_shape(self, n: int) -> tuple[int, ...]:
        """Return (C, *s) of subdomain n."""
        return (self.channels, *(stop - start for start, stop in self.boxes[n]))

    def shard_path(self, n: int, b: int) -> str:
        """Return where block b of subdomain n is, relative to the store."""
        return "/".join(["subdomains", str(n), "c", str(b), *"0" * len(self.image_shape)])

    def written(self) -> dict[str, tuple[str, int]]:
        """Return the arrays that are written block by block: of each the file, with b for the block, and its bytes."""
        files = {"moments": ("moments/c/{b}/0/0", self.shard * self.channels * 32)}
        if self.has_content:
            files["content"] = ("content/c/{b}/0", self.shard * 16)
        return files | {"sha256": ("sha256/c/0/{b}/0", len(self.boxes) * self.shard * 32)}

    def arrays(self) -> dict[str, dict[str, Any]]:
        """Return the metadata of all arrays but those of the subdomains, by path."""
        small = {
            "labels": _array((self.samples,), "int64"),
            "moments": _array((self.samples, self.channels, 4), "float64", (self.shard, self.channels, 4)),
            "sha256": _array((len(self.boxes), self.samples, 32), "uint8", (len(self.boxes), self.shard, 32)),
        }
        if self.has_content:
            small["content"] = _array((self.samples, 16), "uint8", (self.shard, 16))
        small |= {name: _array((count,), "int64") for name, count in self.official().items()}
        return small | ({"groups": _array((self.samples,), "int64")} if self.groups else {})

    def official(self) -> dict[str, int]:
        """Return how many samples each set of the publisher has, by the name of its array."""
        sets = {"official_test": self.official_test, "official_validation": self.official_validation}
        return {name: count for name, count in sets.items() if count is not None}

    def subdomain_array(self, n: int) -> dict[str, Any]:
        """Return the metadata of the array of subdomain n."""
        chunk = self.chunk_shape(n)
        return _array((self.samples, *chunk), self.type, (self.shard, *chunk), inner=(1, *chunk))

    def to_json(self) -> bytes:
        """Return the content of the root's ``zarr.json``."""
        unknown = {name for name in _IF_KNOWN if getattr(self, name) is None}
        values = self.model_dump(mode="json", exclude=unknown if self.version > 1 else set(SINCE_2))
        values["digest"] = _digest(values)
        return to_json({"zarr_format": 3, "node_type": "group", "attributes": {ATTRIBUTE: values}})

    @classmethod
    def read(cls, path: Path) -> Layout:
        """Read and check the root of a store.

        Raises
        ------
        DataError
            There is no store of this version, or its description is damaged or cannot be.
        """
        values = _described(path)
        digest = values.pop("digest", None)
        version = values.get("version")
        if version not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            raise DataError(
                f"{path} is a store of version {version!r:.40}, this ddcnn reads versions {known}; prepare it again"
            )
        if digest != _digest(values):
            raise DataError(f"{path / ROOT} is damaged: its SHA-256 differs; {_anew(path)}")
        try:
            layout = cls.model_validate_json(json.dumps(values, ensure_ascii=False).encode(errors="replace"))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise DataError(f"{path / ROOT}: {where} = {first['input']!r:.60} is not valid: {first['msg']}") from None
        layout._check(path)
        return layout

    def _check(self, path: Path) -> None:
        size, axes = self.image_size, len(self.image_size)
        if math.prod(size) > _MOST_PIXELS:
            raise DataError(f"{path} declares images of {_x(size)} pixels, more than {_MOST_PIXELS}; it is not read")
        if math.prod(self.grid) > _MOST_SUBDOMAINS:
            raise DataError(f"{path} declares a grid of {_x(self.grid)}, more than {_MOST_SUBDOMAINS}; it is not read")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise DataError(f"{path} declares the window {list(self.window)}, which should run from low to high")
        if any(axis >= axes for axis in self.flip_axes):
            raise DataError(f"{path} declares flips along {self.flip_axes}, but images have {axes} axes")
        try:
            _ = self._grid
        except DdcnnError as error:
            raise DataError(f"{path} declares what cannot be: {error}") from None


def is_own(path: Path) -> bool:
    """Tell whether a folder is a store that ddcnn wrote, of any version: its description is whole."""
    try:
        values = _described(path)
    except DataError:
        return False
    return bool(values.pop("digest", None) == _digest(values))


def to_json(value: dict[str, Any]) -> bytes:
    """Return JSON as it is written to files."""
    return (json.dumps(value, indent=1) + "\n").encode()


def read_json(path: Path, advice: str = "prepare the store again") -> dict[str, Any]:
    """Read a JSON object from a file of bounded size; ``advice`` is what to do if that fails.

    Raises
    ------
    DataError
        The file is missing, too large, or not such an object.
    """
    try:
        with open_regular(path) as file:
            content = file.read(MOST_JSON + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {advice}") from None
    if len(content) > MOST_JSON:
        raise DataError(f"{path} is larger than {MOST_JSON} bytes and is not read; {advice}")
    try:
        value = json.loads(content)
        json.dumps(value)  # neither too deep to be handled
    except (ValueError, RecursionError):
        raise DataError(f"{path} is damaged: it is not JSON; {advice}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} is damaged: it is not a JSON object; {advice}")
    return value


def _described(path: Path) -> dict[str, Any]:
    if not (path / ROOT).is_file():
        raise DataError(f"{path} is not a Zarr v3 store: it has no {ROOT}; make one with ddcnn data prepare")
    root = read_json(path / ROOT, _anew(path))
    if root.get("zarr_format") != 3 or root.get("node_type") != "group":
        raise DataError(f"{path / ROOT} should describe a Zarr v3 group; choose another folder, or {_anew(path)}")
    attributes = root.get("attributes")
    values = attributes.get(ATTRIBUTE) if isinstance(attributes, dict) else None
    if not isinstance(values, dict):
        raise DataError(f"{path} is a Zarr group, but not one that ddcnn data prepare made")
    return values


def _anew(path: Path) -> str:
    """Return what mends a damaged root: nothing is written into a folder that does not say what it is."""
    return f"remove {path} and prepare the store again"


def _array(
    shape: tuple[int, ...], kind: str, chunk: tuple[int, ...] | None = None, inner: tuple[int, ...] | None = None
) -> dict[str, Any]:
    """Return the metadata of an array; with ``inner`` chunks, its chunks are shards of them."""
    raw: dict[str, Any] = {"name": "bytes"}
    if kind != "uint8":
        raw["configuration"] = {"endian": "little"}
    codecs = [raw]
    if inner is not None:
        index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        sharding = {
            "chunk_shape": list(inner),
            "codecs": [raw, {"name": "zstd", "configuration": {"level": 1, "checksum": False}}],
            "index_codecs": index,
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": kind,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk or shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": codecs,
        "attributes": {},
    }


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _x(numbers: tuple[int, ...]) -> str:
    return "x".join(map(str, numbers))
