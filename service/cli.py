"""The command ``aviary``. Imports what a command needs when it runs, so that ``--help`` answers at once."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from service.folder import Job, Outcome
    from service.settings import Settings
    from service.transcriber import Order, Transcriber

F = TypeVar("F", bound=Callable[..., Any])

FORMAT_NAMES = ("json", "text", "srt", "vtt", "verbose_json")
"""The keys of `service.formats.FORMATS`, whose import would make ``--help`` slow; a test compares."""


def _options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


model_options = _options(
    click.option("--model", metavar="NAME_OR_PATH", help="Model to use.  [default: canary-mini]"),
    click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]"),
    click.option("--dtype", help="auto, float32 or bfloat16.  [default: auto]"),
)

speech_options = _options(
    click.option("--language", help="What is spoken: a code (de, de-DE) or an English name."),
    click.option("--target-language", help="Translate to this language."),
)

timestamps_option = click.option(
    "--timestamps/--no-timestamps", default=None, help="Whether to load the aligner.  [default: timestamps]"
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="aviary-asr", prog_name="aviary")
def main() -> None:
    """Speech recognition and translation with NVIDIA's Canary models.

    Every option can also be set by an environment variable: AVIARY_MODEL, AVIARY_DEVICE, ...
    """


@main.command()
@model_options
@timestamps_option
@click.option("--alias", "aliases", multiple=True, help="Another name for the model; may be repeated.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [default: 8000]")
@click.option("--default-language", help="What is spoken if a request does not say.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="[default: text]")
def serve(aliases: tuple[str, ...], **given: object) -> None:
    """Serve the OpenAI-compatible API."""
    settings = _settings(model_aliases=aliases or None, **given)

    from service.app import run
    from service.loading import engine_factory
    from service.logs import set_up_logging

    set_up_logging(settings.log_level, settings.log_format)
    sys.exit(run(settings, engine_factory(settings)))


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@model_options
@speech_options
@click.option("--format", "format_name", type=click.Choice(FORMAT_NAMES), default="text", show_default=True)
@click.option("--word-timestamps", is_flag=True, help="List words in verbose_json.")
def transcribe(
    files: tuple[Path, ...],
    language: str | None,
    target_language: str | None,
    format_name: str,
    word_timestamps: bool,
    **given: object,
) -> None:
    """Write down what is said in FILES, to the standard output."""
    if word_timestamps and format_name != "verbose_json":
        raise click.UsageError("--word-timestamps needs --format verbose_json")

    from models.errors import AviaryError
    from service.formats import FORMATS
    from service.transcriber import Order

    chosen = FORMATS[format_name]
    order = Order(language, target_language, timestamps=chosen.timed)
    granularities = ("segment", "word") if word_timestamps else ("segment",)
    failed = False
    with _local(_settings(timestamps=chosen.timed, **given)) as transcriber:
        for file in files:
            try:
                transcript = asyncio.run(transcriber.transcribe(file, order))
            except (AviaryError, OSError) as error:
                click.echo(f"{file}: {error}", err=True)
                failed = True
                continue
            if len(files) > 1:
                click.echo(f"{file}:", err=True)
            click.echo(chosen.write(transcript, granularities).rstrip("\n"))
    sys.exit(1 if failed else 0)


def _parse_formats(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    for name in names:
        if name not in FORMAT_NAMES:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(FORMAT_NAMES)}")
    return names


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Where transcripts go.")
@click.option(
    "--format", "formats", default="json", show_default=True, callback=_parse_formats, help="Separated by commas."
)
@model_options
@speech_options
@click.option("--parallel", type=click.IntRange(1), default=8, show_default=True, help="Files at the same time.")
@click.option("--overwrite", is_flag=True, help="Also do what is done.")
def batch(
    folder: Path,
    out: Path,
    formats: tuple[str, ...],
    language: str | None,
    target_language: str | None,
    parallel: int,
    overwrite: bool,
    **given: object,
) -> None:
    """Transcribe every media file under FOLDER; files that are done are skipped.

    Exits with 0 if all is well, and with 1 if some files failed.
    """
    from service.folder import plan
    from service.formats import FORMATS
    from service.transcriber import Order

    timed = any(FORMATS[name].timed for name in formats)
    settings = _settings(timestamps=timed, **given)
    jobs = plan(folder, out, formats)
    todo = [job for job in jobs if overwrite or not job.is_done()]
    failures: list[Outcome] = []
    if todo:
        with _local(settings) as transcriber:
            failures = _with_progress(transcriber, todo, Order(language, target_language, timestamps=timed), parallel)
    for outcome in failures:
        click.echo(f"{outcome.source}: {outcome.error}", err=True)
    done = len(todo) - len(failures)
    click.echo(f"{done} done, {len(jobs) - len(todo)} skipped, {len(failures)} failed", err=True)
    sys.exit(1 if failures else 0)


def _with_progress(transcriber: "Transcriber", jobs: "list[Job]", order: "Order", parallel: int) -> "list[Outcome]":
    from service.folder import work_through

    failures: list[Outcome] = []
    with click.progressbar(length=len(jobs), label="Transcribing", file=sys.stderr, show_pos=True) as progress:

        def report(outcome: "Outcome") -> None:
            if outcome.error is not None:
                failures.append(outcome)
            progress.update(1)

        asyncio.run(work_through(transcriber, jobs, order, parallel, report))
    return failures


@main.command()
def models() -> None:
    """List the models that are known by name."""
    from models.registry import KNOWN

    width = max(map(len, KNOWN))
    for name, known in KNOWN.items():
        languages = "its file says which languages" if known.languages is None else f"{len(known.languages)} languages"
        source = "comes with Aviary" if known.embedded else "from the Hugging Face hub, at first use"
        click.echo(f"{name:{width}}  {languages}; {source}")


def _settings(**given: object) -> "Settings":
    """The environment, and over it the options that were given."""
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise click.UsageError("; ".join(problems)) from error


@contextmanager
def _local(settings: "Settings") -> "Iterator[Transcriber]":
    from service.errors import EngineDeadError
    from service.loading import engine_factory, local_transcriber
    from service.logs import set_up_logging

    set_up_logging("warning", settings.log_format)
    try:
        with local_transcriber(settings, engine_factory(settings)) as transcriber:
            yield transcriber
    except EngineDeadError as error:
        raise click.ClickException(f"the model {settings.model} cannot be used: {error.__cause__ or error}") from error
