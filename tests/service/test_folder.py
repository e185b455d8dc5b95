"""Folders: what is done stays done, and one bad file harms nobody."""

import asyncio
import json
import os
import threading

import pytest

from models.fake import FakeEngine, Faults
from service.folder import plan, work_through, write_atomically
from service.loading import local_transcriber
from service.settings import Settings
from service.transcriber import Order

ENGLISH = Order(language="en")


@pytest.fixture
def folder(tmp_path, make_wav):
    root = tmp_path / "in"
    for name, content in {
        "a.wav": make_wav("x"),
        "deep/er/b.wav": make_wav("xx"),
        "bad.mp3": b"not audio at all",
        "notes.txt": b"not media",
        ".hidden.wav": make_wav("x"),
        ".cache/c.wav": make_wav("x"),
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def work(jobs, engine=None, parallel=3, order=ENGLISH):
    outcomes = []
    with local_transcriber(Settings(model="fake"), lambda: engine or FakeEngine()) as transcriber:
        asyncio.run(work_through(transcriber, jobs, order, parallel, outcomes.append))
    return {outcome.source.name: outcome.error for outcome in outcomes}


def test_plan_finds_media_and_only_media(folder, tmp_path):
    out = tmp_path / "out"
    jobs = plan(folder, out, ("srt", "json", "verbose_json"))
    assert [str(job.source.relative_to(folder)) for job in jobs] == ["a.wav", "bad.mp3", "deep/er/b.wav"]
    assert jobs[2].outputs == {
        "srt": out / "deep/er/b.wav.srt",
        "json": out / "deep/er/b.wav.json",
        "verbose_json": out / "deep/er/b.wav.verbose.json",
    }


def test_inputs_that_differ_in_their_suffix_do_not_collide(tmp_path):
    for name in ("a.wav", "a.mp3", "a.WAV"):
        (tmp_path / name).touch()
    outputs = [path for job in plan(tmp_path, tmp_path, ("srt", "json")) for path in job.outputs.values()]
    assert len(set(outputs)) == 6


def test_a_bad_file_does_not_stop_the_rest(folder, tmp_path):
    out = tmp_path / "out"
    outcomes = work(plan(folder, out, ("srt", "json")))
    assert outcomes["bad.mp3"]
    assert (outcomes["a.wav"], outcomes["b.wav"]) == (None, None)
    assert json.loads((out / "deep/er/b.wav.json").read_text())["text"] == "Alpha bravo"
    assert (out / "a.wav.srt").read_text().startswith("1\n00:00:00,000 --> 00:00:00,500\nAlpha\n")
    assert sorted(path.name for path in out.rglob("*") if path.is_file()) == [
        "a.wav.json",
        "a.wav.srt",
        "b.wav.json",
        "b.wav.srt",
    ]


def test_what_is_done_is_known(folder, tmp_path):
    jobs = plan(folder, tmp_path / "out", ("srt", "json"))
    work(jobs)
    first = jobs[0]
    assert [job.is_done() for job in jobs] == [True, False, True]
    made = first.source.stat().st_mtime_ns
    os.utime(first.outputs["srt"], ns=(made, made - 1))
    assert not first.is_done(), "an output is older than the input"
    os.utime(first.outputs["srt"], ns=(made, made))
    assert first.is_done()
    first.outputs["json"].unlink()
    assert not first.is_done(), "an output is missing"


def test_an_engine_error_is_reported(folder, tmp_path):
    engine = FakeEngine(faults=Faults(poisoned=lambda u: u.duration > 0.6))
    outcomes = work(plan(folder, tmp_path / "out", ("text",)), engine)
    assert "told to fail" in outcomes["b.wav"]
    assert outcomes["a.wav"] is None


def test_an_unforeseen_error_is_reported(folder, tmp_path, monkeypatch):
    def explode(_):
        raise KeyError("who knows")

    monkeypatch.setattr("service.transcriber.merge", explode)
    assert "KeyError" in work(plan(folder, tmp_path / "out", ("text",)))["a.wav"]


def test_an_output_that_cannot_be_written_is_reported(folder, tmp_path):
    (tmp_path / "out").write_text("a file where the folder should be")
    assert work(plan(folder, tmp_path / "out", ("text",)))["a.wav"]


def test_a_file_that_changes_meanwhile_is_not_passed_off_as_done(folder, tmp_path, until):
    gate = threading.Event()
    engine = FakeEngine(faults=Faults(gate=gate))
    [job, *_] = plan(folder, tmp_path / "out", ("text",))

    def change():
        until(lambda: engine.active)
        os.utime(job.source, (1, 1))
        gate.set()

    changer = threading.Thread(target=change)
    changer.start()
    outcomes = work([job], engine)
    changer.join()
    assert "changed" in outcomes["a.wav"]
    assert not job.outputs["text"].exists()


def test_files_share_batches(tmp_path, make_wav, until):
    for n in range(5):
        (tmp_path / f"{n}.wav").write_bytes(make_wav("x"))
    gate = threading.Event()
    engine = FakeEngine(faults=Faults(gate=gate))
    with local_transcriber(Settings(model="fake", max_wait_ms=0), lambda: engine) as transcriber:

        def open_gate():
            until(lambda: transcriber.scheduler.open_requests == 5)
            gate.set()

        opener = threading.Thread(target=open_gate)
        opener.start()
        outcomes = []
        jobs = plan(tmp_path, tmp_path / "out", ("text",))
        asyncio.run(work_through(transcriber, jobs, ENGLISH, 5, outcomes.append))
        opener.join()
    assert [outcome.error for outcome in outcomes] == [None] * 5
    assert sum(map(len, engine.batches)) == 5
    assert max(map(len, engine.batches)) > 1


def test_writing_is_all_or_nothing(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_atomically(path, "first\n")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "second \ud800")
    assert path.read_text() == "first\n"
    assert list(path.parent.iterdir()) == [path]


def test_files_have_the_usual_permissions(tmp_path):
    mask = os.umask(0o022)
    try:
        write_atomically(tmp_path / "a.txt", "")
    finally:
        os.umask(mask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
