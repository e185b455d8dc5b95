"""Multipart forms: a request body in, its fields and one file on disk out.

The file is streamed to disk and counted on its way, so neither memory nor disk holds more than the limits. The
framework's own parser has no limit on files, which is why this one exists.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from service.errors import ClientGoneError, RequestError, UploadTooLargeError

FILE_FIELD: Final = "file"

MAX_FIELDS_BYTES: Final = 1 << 20
"""Most bytes of all fields together that are not the file, their names included."""

MAX_PARTS: Final = 200
"""Most parts of a form."""

WRITE_BYTES: Final = 1 << 20
"""How much is gathered in memory before it goes to disk."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart form.

    Attributes:
        fields: Values by field name, in their order.
        file: Where the file's bytes are, if there was one.
        size: Their number.
    """

    fields: dict[str, list[str]]
    file: Path | None
    size: int


@asynccontextmanager
async def receive_upload(request: Request, *, max_bytes: int, folder: Path | None) -> AsyncIterator[Upload]:
    """Reads a multipart request; the file is there until the context ends.

    Args:
        request: Its body must not have been read.
        max_bytes: Largest file.
        folder: Where to put the file; None for the system's folder.

    On an error the rest of the body is left alone: uvicorn answers, and then reads and forgets it.

    Raises:
        RequestError: The body is not a multipart form.
        UploadTooLargeError: The file is too large.
        ClientGoneError: The caller hung up.
    """
    boundary = _boundary(request)
    with _temporary_file(folder) as (path, file):
        with file:
            reader = _Reader(boundary, file, max_bytes)
            await _read(request, reader, max_bytes)
        yield Upload(reader.fields, path if reader.has_file else None, reader.size)


@contextmanager
def _temporary_file(folder: Path | None) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file that only we may read, open for writing; it is gone when the context ends, closed or not."""
    handle, name = tempfile.mkstemp(prefix="aviary-", dir=folder)
    try:
        yield Path(name), os.fdopen(handle, "wb")
    finally:
        Path(name).unlink(missing_ok=True)


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise RequestError("send a multipart/form-data body with a boundary", code="invalid_content_type")
    return options[b"boundary"]


async def _read(request: Request, reader: "_Reader", max_bytes: int) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > max_bytes + MAX_FIELDS_BYTES:
        raise _too_large(max_bytes)
    try:
        async for block in request.stream():
            reader.feed(block)
            if len(reader.pending) >= WRITE_BYTES:
                # A disk can be slow, and the event loop serves others too.
                await asyncio.to_thread(reader.flush)
        reader.finish()
    except FormParserError as error:
        raise RequestError(f"the multipart form is broken: {error}") from error
    except ClientDisconnect:
        raise ClientGoneError("the client hung up while sending") from None
    await asyncio.to_thread(reader.flush)


def _too_large(max_bytes: int) -> UploadTooLargeError:
    return UploadTooLargeError(f"the file is larger than {max_bytes / 1e6:g} MB")


@dataclass(slots=True)
class _Part:
    """The part being read. Its headers come in pieces."""

    header_name: bytes = b""
    header_value: bytes = b""
    name: str | None = None
    value: bytearray = field(default_factory=bytearray)

    @property
    def is_file(self) -> bool:
        return self.name == FILE_FIELD


class _Reader:
    """Takes blocks of the body; gathers fields, and bytes of the file until `flush` writes them."""

    def __init__(self, boundary: bytes, file: BinaryIO, max_bytes: int) -> None:
        self.fields: dict[str, list[str]] = {}
        self.pending = bytearray()
        self.size = 0
        self.has_file = False
        self._file = file
        self._max_bytes = max_bytes
        self._parts = 0
        self._fields_bytes = 0
        self._ended = False
        self._part = _Part()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, block: bytes) -> None:
        """Parses the next bytes of the body."""
        self._parser.write(block)

    def finish(self) -> None:
        """Checks that the body was whole: half a file must not pass for one."""
        self._parser.finalize()
        if not self._ended:
            raise RequestError("the multipart form is cut short")

    def flush(self) -> None:
        """Writes what was gathered."""
        self._file.write(self.pending)
        self._file.flush()
        self.pending.clear()

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise RequestError(f"the form has more than {MAX_PARTS} fields")
        self._part = _Part()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._part.header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._part.header_name.lower() == b"content-disposition":
            _, options = parse_options_header(self._part.header_value)
            name = options.get(b"name")
            self._part.name = None if name is None else name.decode("utf-8", "replace")
        self._part.header_name = self._part.header_value = b""

    def _on_headers_finished(self) -> None:
        if self._part.name is None:
            raise RequestError("a part of the form has no name")
        if self._part.is_file:
            if self.has_file:
                raise RequestError("send one file per request", param=FILE_FIELD)
            self.has_file = True
        self._count_field(len(self._part.name))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if not self._part.is_file:
            self._count_field(end - start)
            self._part.value += data[start:end]
            return
        self.size += end - start
        if self.size > self._max_bytes:
            raise _too_large(self._max_bytes)
        self.pending += data[start:end]

    def _on_part_end(self) -> None:
        if not self._part.is_file and self._part.name is not None:
            self.fields.setdefault(self._part.name, []).append(self._part.value.decode("utf-8", "replace"))

    def _on_end(self) -> None:
        self._ended = True

    def _count_field(self, size: int) -> None:
        self._fields_bytes += size
        if self._fields_bytes > MAX_FIELDS_BYTES:
            raise UploadTooLargeError(f"the fields are larger than {MAX_FIELDS_BYTES} bytes", param=self._part.name)
