"""Downloads that are verified before they are used, and archives that are unpacked without trusting them."""

from __future__ import annotations

import http.client
import shutil
import tarfile
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from ddcnn.atomic import replacing
from ddcnn.config import DataConfig
from ddcnn.data.files import digest, search_folders
from ddcnn.errors import DataError

_TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class Archive:
    """A published tar archive.

    Attributes
    ----------
    name
        The data set, for messages.
    url, md5
        Where it is and its checksum.
    folder
        The one folder that it holds.
    """

    name: str
    url: str
    md5: str
    folder: str

    @property
    def file(self) -> str:
        """The name of the archive's file."""
        return PurePosixPath(urlsplit(self.url).path).name


def find_or_fetch(archive: Archive, config: DataConfig, contains: str) -> Path:
    """Return the folder of a data set, downloaded and unpacked if it is nowhere.

    ``data.directory`` may be that folder or the one that holds it; the cache folder is looked at next.

    Parameters
    ----------
    archive
        What to fetch.
    config
        ``directory`` and ``offline``.
    contains
        A file or folder by which the data set's folder is recognised.

    Raises
    ------
    DataError
        Offline and absent (the message says which file to put where), or the download or its checksum fails.
    """
    places = search_folders(config)
    for place in places:
        for folder in (place, place / archive.folder):
            if (folder / contains).exists():
                return folder
    for place in places:  # an archive that the user put there
        if (place / archive.file).is_file():
            verify(place / archive.file, archive.md5)
            return unpack(place / archive.file, place, archive.folder)
    if config.offline:
        raise DataError(
            f"{archive.name} is not in {' or '.join(map(str, places))}, and data.offline is set; get {archive.url} "
            f"(md5 {archive.md5}) on another machine and put it at {places[0] / archive.file}"
        )
    target = places[0] / archive.file
    download(archive.url, target, archive.md5)
    folder = unpack(target, places[0], archive.folder)
    target.unlink(missing_ok=True)
    return folder


def download(url: str, target: Path, md5: str) -> None:
    """Download a file; it appears at ``target`` complete and verified, or not at all.

    Raises
    ------
    DataError
        The file cannot be had or written, or its MD5 is another one.
    """
    by_hand = f"put the file (md5 {md5}) at {target} yourself"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, replacing(target) as file:
            shutil.copyfileobj(response, file, 1 << 20)
            file.flush()
            found = digest(Path(file.name))
            if found != md5:
                raise DataError(f"{url} has MD5 {found}, expected {md5}; try again, or {by_hand}")
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url} cannot be downloaded to {target}: {error}; try again, or {by_hand}") from None


def verify(path: Path, md5: str) -> None:
    """Raise a `DataError` unless the file has this MD5."""
    found = digest(path)
    if found != md5:
        raise DataError(f"{path} is damaged: its MD5 should be {md5}, got {found}; remove it and get it again")


def unpack(archive: Path, into: Path, folder: str) -> Path:
    """Unpack the folder of a tar archive; ``into / folder`` appears complete or not at all.

    Members that point outside, and devices, are refused (PEP 706).

    Raises
    ------
    DataError
        Not a tar archive, an unsafe member, no such folder in it, or not enough space.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DataError(
            f"this Python is too old to unpack {archive} safely; update it, or unpack it to {into} yourself"
        )
    try:
        with tempfile.TemporaryDirectory(dir=into, prefix=f".{folder}.") as temporary:
            with tarfile.open(archive) as tar:
                tar.extractall(temporary, filter="data")
            unpacked = Path(temporary) / folder
            if not unpacked.is_dir():
                raise DataError(f"{archive} should hold a folder {folder}")
            if not (into / folder).exists():  # another process may have been faster
                unpacked.rename(into / folder)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{archive} cannot be unpacked to {into}: {error}") from None
    return into / folder
