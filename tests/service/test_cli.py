"""The command line, in process; one test starts a real one."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from service.cli import FORMAT_NAMES, main
from service.formats import FORMATS


@pytest.fixture
def aviary():
    return lambda *args: CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture
def clip(tmp_path, make_wav):
    path = tmp_path / "clip.wav"
    path.write_bytes(make_wav("xx"))
    return path


def test_format_names_are_the_formats():
    assert set(FORMAT_NAMES) == set(FORMATS)


def test_transcribe(aviary, clip):
    result = aviary("transcribe", clip, "--model", "fake", "--language", "en")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Alpha bravo\n", "")


def test_transcribe_with_words(aviary, clip):
    result = aviary(
        "transcribe", clip, "--model", "fake", "--language", "de", "--format", "verbose_json", "--word-timestamps"
    )
    answer = json.loads(result.stdout)
    assert [word["word"] for word in answer["words"]] == ["Alpha", "bravo"]
    assert answer["language"] == "german"


def test_translate(aviary, clip):
    result = aviary("transcribe", clip, "--model", "fake", "--language", "de", "--target-language", "en")
    assert result.stdout == "Alpha_en bravo_en\n"


def test_transcribe_goes_on_after_a_bad_file(aviary, clip, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"nothing to hear")
    result = aviary("transcribe", bad, clip, "--model", "fake", "--language", "en", "--format", "srt")
    assert result.exit_code == 1
    assert str(bad) in result.stderr
    assert result.stdout.startswith("1\n00:00:00,000 -->")


def test_a_language_is_asked_for(aviary, clip):
    result = aviary("transcribe", clip, "--model", "fake")
    assert result.exit_code == 1
    assert "set language" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["transcribe"],
        ["transcribe", "no-such-file.wav"],
        ["transcribe", __file__, "--word-timestamps"],
        ["transcribe", __file__, "--format", "docx"],
        ["batch", "."],
        ["batch", ".", "--out", "x", "--format", "srt,docx"],
        ["serve", "--port", "65536"],
        ["serve", "--default-language", "klingon"],
        ["sing"],
    ],
)
def test_wrong_usage(aviary, args):
    assert aviary(*args).exit_code == 2


def test_a_bad_environment_is_wrong_usage(aviary, clip, monkeypatch):
    monkeypatch.setenv("AVIARY_DECODE_WORKERS", "0")
    result = aviary("transcribe", clip, "--model", "fake")
    assert result.exit_code == 2
    assert "decode_workers" in result.stderr


def test_batch(aviary, tmp_path, make_wav):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a.wav", "b.wav"):
        (folder / name).write_bytes(make_wav("xx"))
    args = ("batch", folder, "--out", out, "--format", "srt,json", "--model", "fake", "--language", "en")

    first = aviary(*args)
    assert (first.exit_code, first.stdout) == (0, "")
    assert "2 done, 0 skipped, 0 failed" in first.stderr
    names = {path.name for path in out.iterdir()}
    assert names == {"a.wav.srt", "a.wav.json", "b.wav.srt", "b.wav.json"}

    (folder / "c.wav").write_bytes(b"broken")
    second = aviary(*args)
    assert second.exit_code == 1
    assert "0 done, 2 skipped, 1 failed" in second.stderr
    assert "c.wav" in second.stderr

    (folder / "c.wav").unlink()
    assert "0 done, 2 skipped, 0 failed" in aviary(*args).stderr
    assert "2 done, 0 skipped, 0 failed" in aviary(*args, "--overwrite").stderr


def test_models(aviary):
    result = aviary("models")
    assert result.exit_code == 0
    assert {"canary-mini", "nvidia/canary-1b-v2"} <= {line.split()[0] for line in result.stdout.splitlines()}


@pytest.mark.parametrize("args", [["--help"], ["serve", "--help"], ["models"]])
def test_a_real_process_imports_nothing_heavy(args):
    code = (
        "import sys\n"
        "sys.argv = ['aviary', *sys.argv[1:]]\n"
        "from service.cli import main\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'fastapi', 'pydantic', 'av', 'uvicorn'} & set(sys.modules)\n"
        "    print('heavy:', sorted(heavy), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr == "heavy: []\n"


@pytest.mark.slow  # It imports torch.
def test_a_model_that_cannot_be_loaded(clip, tmp_path):
    broken = tmp_path / "weights.nemo"
    broken.write_bytes(b"not a checkpoint")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AVIARY_")}
    done = subprocess.run(
        [sys.executable, "-m", "service", "transcribe", str(clip), "--model", str(broken)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
    )
    assert done.returncode == 1
    assert "weights.nemo" in done.stderr
    assert "Traceback" not in done.stderr
