"""A folder of media files in, a folder of transcripts out; what is done is not done again.

``talks/a.mp3`` becomes ``OUT/talks/a.mp3.srt``: the whole name is kept, so ``a.mp3`` and ``a.wav`` do not collide. A
file appears under its name only when it is complete.
"""

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.errors import AviaryError
from service.formats import FORMATS
from service.transcriber import Order, Transcriber

_log = logging.getLogger(__name__)

_SUFFIXES: Final = (
    "3gp aac ac3 aif aiff amr au avi caf flac flv m2ts m4a m4b m4v mka mkv mov mp2 mp3 mp4 mpeg mpg mpga mts "
    "oga ogg ogv opus ts wav webm wma wmv wv"
)

MEDIA_SUFFIXES: Final = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""Files with other suffixes are passed over; they are not errors."""


@dataclass(frozen=True, slots=True)
class Job:
    """One media file and what is to be written for it.

    Attributes:
        source: The media file.
        outputs: Where each format goes.
    """

    source: Path
    outputs: Mapping[str, Path]

    def is_done(self) -> bool:
        """Whether every output is there, and newer than the source."""
        made = self.source.stat().st_mtime_ns
        return all(path.is_file() and path.stat().st_mtime_ns >= made for path in self.outputs.values())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a media file; ``error`` is None if all is well."""

    source: Path
    error: str | None = None


def plan(folder: Path, out: Path, formats: Iterable[str]) -> list[Job]:
    """Finds the media files under a folder, in order; hidden ones are passed over, and links to folders too."""
    names = list(formats)
    jobs = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            source = Path(root, name)
            if not name.startswith(".") and source.suffix.lower() in MEDIA_SUFFIXES and source.is_file():
                target = out / source.relative_to(folder)
                outputs = {key: target.with_name(target.name + FORMATS[key].extension) for key in names}
                jobs.append(Job(source, outputs))
    return sorted(jobs, key=lambda job: job.source)


async def work_through(
    transcriber: Transcriber,
    jobs: Sequence[Job],
    order: Order,
    parallel: int,
    report: Callable[[Outcome], None],
) -> None:
    """Works through the jobs, a few at a time so that the engine's batches are full.

    Args:
        transcriber: Ready to work.
        jobs: What to do.
        order: How.
        parallel: Files worked on at the same time.
        report: Called once per job, as it ends; a job that fails does not stop the others.
    """
    waiting = iter(jobs)

    async def work() -> None:
        for job in waiting:
            report(await _do(transcriber, job, order))

    async with asyncio.TaskGroup() as group:
        for _ in range(parallel):
            group.create_task(work())


async def _do(transcriber: Transcriber, job: Job, order: Order) -> Outcome:
    try:
        before = job.source.stat().st_mtime_ns
        transcript = await transcriber.transcribe(job.source, order)
        if job.source.stat().st_mtime_ns != before:
            return Outcome(job.source, "the file changed while it was worked on")
        for name, path in job.outputs.items():
            write_atomically(path, FORMATS[name].write(transcript, ("segment", "word")))
    except (AviaryError, OSError) as error:
        return Outcome(job.source, str(error))
    except Exception as error:  # noqa: BLE001 - one file must not take the others with it
        _log.exception("an unforeseen error with %s", job.source)
        return Outcome(job.source, f"unforeseen: {error!r}")
    return Outcome(job.source)


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is either complete or not there, whenever the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _umask() -> int:
    """What the user's new files are masked with; `tempfile` makes its files private."""
    # It can only be read by setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
