"""Named arrays in one file, which processes map instead of reading it: its pages are shared.

The file: a mark, the length of the header and its SHA-256, the header as JSON, then the arrays'
numbers. The header has names, types, shapes and places, facts for whoever wrote it, the file's size
and the SHA-256 of the numbers. So the digest of the header stands for the whole file.
"""

import hashlib
import json
import mmap
import os
import struct
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from megdet_hvd.errors import StorageError
from megdet_hvd.storage import temporary_beside

MARK = b"megdet_hvd arrays 1\n"
_HEAD = struct.Struct("<20sQ32s")
_LONGEST_HEADER = 1 << 30
_ALIGNED = 64
"""Arrays begin at multiples of so many bytes."""
_PIECE = 1 << 20
"""Bytes read at once."""


class DamagedArraysError(Exception):
    """A file that isn't what was written."""


class MappedArrays:
    """Arrays of a file that is mapped. Pickled as a reference: what takes it up maps the file too.

    The file stays reachable while this object lives, also where its name has been removed.
    """

    def __init__(self, file: IO[bytes], path: Path, header: Mapping[str, Any], digest: str) -> None:
        self.path, self.digest = path, digest
        self.facts: Mapping[str, Any] = header["facts"]
        """What was written beside the arrays."""
        self._file = file
        weakref.finalize(self, file.close)
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.arrays = _views(content, header)
        """By name; they can't be written to."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (str(self.path), self.digest, os.getpid(), self._file.fileno())


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
    """Write a file that takes its name only once it is whole and on the disk.

    Args:
        path: the file; its folder must be there.
        arrays: by name, of numbers.
        facts: anything that JSON has words for.

    Raises:
        OSError: it can't be written; what was there before is as it was.
    """
    places: dict[str, tuple[str, tuple[int, ...], int]] = {}
    digest, length = hashlib.sha256(), 0
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    for name, array in plain.items():
        places[name] = (array.dtype.str, array.shape, length)
        for piece in _bytes_of(array):
            digest.update(piece)
            length += len(piece)
    header = {"facts": facts, "arrays": places, "length": length, "sha256": digest.hexdigest()}
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + _HEAD.size) % _ALIGNED)
    temporary = temporary_beside(path)
    try:
        with temporary.open("xb") as file:
            file.write(_HEAD.pack(MARK, len(text), hashlib.sha256(text).digest()))
            file.write(text)
            for array in plain.values():
                for piece in _bytes_of(array):
                    file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def map_arrays(path: Path) -> MappedArrays:
    """Map a file after reading it through once, against its checksums.

    Raises:
        DamagedArraysError: it isn't what was written.
        OSError: it isn't there, or can't be read.
    """
    file = path.open("rb")
    try:
        header, digest = _checked(file)
        return MappedArrays(file, path, header, digest)
    except BaseException:
        file.close()
        raise


def read_arrays(path: Path) -> tuple[Mapping[str, Any], dict[str, NDArray[Any]]]:
    """Facts and arrays in memory of this process alone; as `map_arrays` otherwise."""
    with path.open("rb") as file:
        header, _ = _checked(file)
        file.seek(0)
        return header["facts"], _views(file.read(), header)


def _bytes_of(array: NDArray[Any]) -> Iterator[memoryview]:
    if array.size:
        yield array.data.cast("B")
    yield memoryview(bytes(-array.nbytes % _ALIGNED))


def _views(content: bytes | mmap.mmap, header: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    begin = header["begin"]
    return {
        name: np.frombuffer(
            content, np.dtype(kind), count=int(np.prod(shape, dtype=np.int64)), offset=begin + place
        ).reshape(shape)
        for name, (kind, shape, place) in header["arrays"].items()
    }


def _header(file: IO[bytes]) -> tuple[dict[str, Any], str]:
    """The header and its digest, of a file that is as long as it says."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise DamagedArraysError("it ends within its head")
    mark, length, digest = _HEAD.unpack(head)
    if mark != MARK:
        raise DamagedArraysError("it is no file of ours, or of another version")
    text = file.read(min(length, _LONGEST_HEADER))
    if hashlib.sha256(text).digest() != digest:
        raise DamagedArraysError("its header is damaged")
    header: dict[str, Any] = json.loads(text)
    header["begin"] = _HEAD.size + length
    size = os.fstat(file.fileno()).st_size
    if size != header["begin"] + header["length"]:
        raise DamagedArraysError(
            f"it has {size} bytes, and should have {header['begin'] + header['length']}"
        )
    return header, digest.hex()


def _checked(file: IO[bytes]) -> tuple[dict[str, Any], str]:
    header, own = _header(file)
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
    if digest.hexdigest() != header["sha256"]:
        raise DamagedArraysError("its numbers are damaged")
    return header, own


def _again(path: str, digest: str, process: int, descriptor: int) -> MappedArrays:
    """The arrays of a file that ``process`` has open, in this one.

    By its name, where that still is the same file; else as the other process has it open.

    Raises:
        StorageError: neither can be opened.
    """
    for name in (path, f"/proc/{process}/fd/{descriptor}"):
        with suppress(OSError, DamagedArraysError), ExitStack() as unless_right:
            file = unless_right.enter_context(open(name, "rb"))
            header, found = _header(file)
            if found == digest:
                arrays = MappedArrays(file, Path(path), header, digest)
                unless_right.pop_all()  # it stays open with the arrays
                return arrays
    raise StorageError(
        f"{path}: the index of the pictures can't be opened any more; leave the cache folder alone "
        "while runs work with it (data.index_cache), and start again"
    )
