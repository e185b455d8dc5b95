"""Decoding: any file in, mono 16 kHz out, or the right error."""

import concurrent.futures
import os
import struct
import sys
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from models.audio import decode as decode_module
from models.audio.decode import decode_file
from models.errors import AudioTooLongError, AudioTooShortError, CorruptAudioError, NotAudioError
from models.types import SAMPLE_RATE

# name, codec, options for write_media
MEDIA = [
    ("plain.wav", "pcm_s16le", {}),
    ("telephone.wav", "pcm_s16le", {"rate": 8000, "layout": "stereo"}),
    ("law.wav", "pcm_mulaw", {"rate": 8000}),
    ("u8.wav", "pcm_u8", {"rate": 22_050}),
    ("s24.wav", "pcm_s24le", {"sample_format": "s32", "rate": 48_000, "layout": "stereo"}),
    ("float.wav", "pcm_f32le", {"rate": 96_000, "layout": "stereo"}),
    ("double.wav", "pcm_f64le", {}),
    ("surround.wav", "pcm_s16le", {"rate": 44_100, "layout": "5.1"}),
    ("adpcm.wav", "adpcm_ms", {"rate": 22_050}),
    ("s16.aiff", "pcm_s16be", {"rate": 44_100}),
    ("s16.caf", "pcm_s16le", {"rate": 44_100}),
    ("s16.w64", "pcm_s16le", {"rate": 44_100}),
    ("lossless.flac", "flac", {"rate": 44_100, "layout": "stereo"}),
    ("lossless.m4a", "alac", {"rate": 44_100, "layout": "stereo"}),
    ("lossless.wv", "wavpack", {"rate": 44_100}),
    ("music.mp3", "libmp3lame", {"rate": 44_100, "layout": "stereo"}),
    ("phone.m4a", "aac", {"rate": 44_100, "layout": "stereo"}),
    ("surround.m4a", "aac", {"rate": 44_100, "layout": "5.1"}),
    ("stream.aac", "aac", {"rate": 48_000, "container": "adts"}),
    ("surround.ac3", "ac3", {"rate": 48_000, "layout": "5.1"}),
    ("voice.ogg", "libopus", {"rate": 48_000, "layout": "stereo"}),
    ("browser.webm", "libopus", {"rate": 48_000}),
    ("film.mkv", "libopus", {"rate": 48_000, "with_video": True}),
    ("film.mp4", "aac", {"rate": 48_000, "layout": "stereo", "with_video": True}),
    ("film.avi", "libmp3lame", {"rate": 44_100, "layout": "stereo", "with_video": True}),
    ("film.ts", "aac", {"rate": 48_000, "layout": "stereo", "with_video": True, "container": "mpegts"}),
]


@pytest.mark.parametrize(("name", "codec", "options"), MEDIA, ids=[row[0] for row in MEDIA])
def test_decodes(make_media, name, codec, options):
    path = make_media(name, codec, **options)
    samples = decode_file(path).samples
    assert samples.dtype == np.float32
    # Lossy codecs pad by up to two frames of 1024 samples on either side.
    assert len(samples) / SAMPLE_RATE == pytest.approx(1.0, abs=0.06)
    middle = samples[SAMPLE_RATE // 4 : SAMPLE_RATE * 3 // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(middle) == pytest.approx(440, abs=3)
    # The level is that of the channels, whatever their number and the codec's sample format.
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.5, rel=0.08)


def test_whole_wav_is_exact(make_media):
    samples = decode_file(make_media("a.wav", "pcm_s16le", seconds=0.5)).samples
    times = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    np.testing.assert_allclose(samples, 0.5 * np.sin(2 * np.pi * 440 * times), atol=1 / 32_768)


@pytest.mark.parametrize("num_channels", [3, 7, 11, 16, 24, 32])
def test_any_number_of_channels(tmp_path, num_channels):
    """The same sound on all channels keeps its level, whether or not their positions are known."""
    with wave.open(str(tmp_path / "many.wav"), "wb") as output:
        output.setparams((num_channels, 2, SAMPLE_RATE, 0, "NONE", ""))
        output.writeframes(np.full((SAMPLE_RATE, num_channels), 8192, dtype="<i2").tobytes())
    assert np.median(decode_file(tmp_path / "many.wav").samples) == pytest.approx(0.25, rel=0.01)


def test_sound_that_starts_late_keeps_its_time(make_media):
    path = make_media("late.mkv", "libopus", rate=48_000, with_video=True, delay=2.0)
    audio = decode_file(path)
    assert audio.duration == pytest.approx(3.0, abs=0.06)
    assert np.abs(audio.samples[: int(1.9 * SAMPLE_RATE)]).max() == 0.0
    assert np.abs(audio.samples[int(2.1 * SAMPLE_RATE) :]).max() > 0.4


def test_hole_in_the_timestamps_becomes_silence(write_channels, tmp_path):
    """Two recordings in one file, the second one three seconds later by the clock."""
    import av

    first = write_channels("one.mka", "pcm_s16le", np.full((1, 16_000), 0.5, np.float32), rate=16_000, layout="mono")
    path = tmp_path / "holes.mka"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for delay in (0, 4):
            with av.open(str(first)) as source:
                for frame in source.decode(audio=0):
                    frame.pts += int(delay / frame.time_base)
                    output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    samples = decode_file(path).samples
    assert len(samples) / SAMPLE_RATE == pytest.approx(5.0, abs=0.01)
    assert samples[8000] == pytest.approx(0.5, abs=0.01)
    assert samples[3 * SAMPLE_RATE] == 0.0
    assert samples[-8000] == pytest.approx(0.5, abs=0.01)


def float_wav(path: Path, samples: np.ndarray, declared: int | None = None) -> Path:
    """A float WAV by hand; ``declared`` is the size of the data that the header claims."""
    data = np.asarray(samples, dtype="<f4").tobytes()
    size = len(data) if declared is None else declared
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, SAMPLE_RATE, 4 * SAMPLE_RATE, 4, 32)
    riff = struct.pack("<4sI4s", b"RIFF", min(36 + size, 0xFFFFFFFF), b"WAVE")
    path.write_bytes(riff + form + struct.pack("<4sI", b"data", size) + data)
    return path


def test_samples_that_are_not_numbers_become_silence(tmp_path):
    samples = np.full(SAMPLE_RATE, 0.25, dtype=np.float32)
    samples[8000:8010] = [np.nan, np.inf, -np.inf, np.nan, np.nan, 1e30, -1e30, np.nan, np.inf, np.nan]
    decoded = decode_file(float_wav(tmp_path / "nan.wav", samples)).samples
    assert np.isfinite(decoded).all()
    assert np.abs(decoded).max() <= 1.0
    np.testing.assert_allclose(decoded[:7900], 0.25, atol=1e-4)
    np.testing.assert_allclose(decoded[8100:], 0.25, atol=1e-4)


def test_mostly_not_numbers_is_corrupt(tmp_path):
    with pytest.raises(CorruptAudioError, match="not numbers"):
        decode_file(float_wav(tmp_path / "nan.wav", np.full(SAMPLE_RATE, np.nan)))


@pytest.mark.parametrize("content", [b"hello, world\n" * 100, b"%PDF-1.7\n" + bytes(5000), bytes(100_000)])
def test_other_files_are_not_audio(tmp_path, content):
    path = tmp_path / "file.mp3"
    path.write_bytes(content)
    with pytest.raises(NotAudioError):
        decode_file(path)


def test_random_bytes_are_refused(tmp_path):
    """Random bytes look like some raw format now and then; that must end in an AudioError too."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        path = tmp_path / "noise"
        path.write_bytes(rng.bytes(50_000))
        with pytest.raises((NotAudioError, CorruptAudioError, AudioTooShortError)):
            decode_file(path)


def test_empty_file_is_not_audio(tmp_path):
    path = tmp_path / "empty.wav"
    path.touch()
    with pytest.raises(NotAudioError, match="empty"):
        decode_file(path)


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        decode_file(tmp_path / "nothing.wav")


def test_only_regular_files_are_opened(tmp_path):
    with pytest.raises(NotAudioError, match="regular"):
        decode_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotAudioError, match="regular"):
        decode_file(tmp_path / "pipe")


def test_silent_film_is_not_audio(silent_film):
    with pytest.raises(NotAudioError, match="no audio stream"):
        decode_file(silent_film)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.mp3", "libmp3lame"), ("a.opus", "libopus")]
)
def test_file_that_ends_early_gives_what_it_has(make_media, name, codec):
    path = make_media(name, codec, seconds=4.0, rate=48_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert decode_file(path).duration == pytest.approx(2.0, abs=0.5)


def test_truncated_beyond_use_is_corrupt(make_media):
    """The index of an MP4 file is at its end."""
    path = make_media("a.m4a", "aac", seconds=4.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CorruptAudioError, match="damaged or incomplete"):
        decode_file(path)


def test_header_without_sound_is_corrupt_or_too_short(make_media, tmp_path):
    path = make_media("a.m4a", "aac", seconds=4.0)
    content = bytearray(path.read_bytes())
    begin = content.index(b"mdat") + 4
    end = content.index(b"moov") - 4
    content[begin:end] = np.random.default_rng(0).bytes(end - begin)
    path.write_bytes(content)
    with pytest.raises(CorruptAudioError):
        decode_file(path)
    with pytest.raises(AudioTooShortError):
        decode_file(float_wav(tmp_path / "nothing.wav", np.zeros(0)))


def test_damage_in_the_middle_is_skipped(make_media):
    path = make_media("a.mp3", "libmp3lame", seconds=4.0, rate=44_100)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(content)
    assert decode_file(path).duration > 3.0


def test_too_short(tmp_path):
    with pytest.raises(AudioTooShortError):
        decode_file(float_wav(tmp_path / "click.wav", np.zeros(319)))
    assert decode_file(float_wav(tmp_path / "blip.wav", np.zeros(320))).duration == 0.02


def test_too_long(make_media):
    path = make_media("a.wav", "pcm_s16le", seconds=1.0)
    assert decode_file(path, max_duration=1.0).duration == 1.0
    with pytest.raises(AudioTooLongError):
        decode_file(path, max_duration=0.999)
    with pytest.raises(AudioTooLongError):
        decode_file(path, max_duration=-1.0)


def test_header_that_promises_days_is_not_believed(tmp_path):
    """Recorders that stream cannot know the length when they write the header."""
    path = float_wav(tmp_path / "days.wav", np.full(SAMPLE_RATE, 0.5), declared=0xFFFFFFFF)
    assert decode_file(path, max_duration=10.0).duration == 1.0


def test_long_silence_in_a_small_file_is_stopped(write_channels):
    """Two hours of silence in FLAC are half a megabyte; they must cost neither their memory nor their time."""
    path = write_channels("bomb.flac", "flac", np.zeros((1, 7_200_000), np.float32), rate=1000, layout="mono")
    assert path.stat().st_size < 600_000
    began = time.monotonic()
    with pytest.raises(AudioTooLongError):
        decode_file(path, max_duration=30.0)
    assert time.monotonic() - began < 30.0


def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Puts another script in the place of the decoder."""
    script = tmp_path / "child.py"
    script.write_text(source)
    monkeypatch.setattr(decode_module, "_CHILD", script)


def test_child_that_hangs_is_killed(tmp_path, monkeypatch, make_media):
    child(tmp_path, monkeypatch, "import time; time.sleep(60)")
    began = time.monotonic()
    with pytest.raises(CorruptAudioError, match="too long"):
        decode_file(make_media("a.wav", "pcm_s16le"), timeout=0.3)
    assert time.monotonic() - began < 30.0


def test_child_that_closes_its_output_and_hangs_is_killed(tmp_path, monkeypatch, make_media):
    child(tmp_path, monkeypatch, "import os, time; os.close(1); time.sleep(60)")
    with pytest.raises(CorruptAudioError, match="too long"):
        decode_file(make_media("a.wav", "pcm_s16le"), timeout=0.5)


def test_child_that_dies_is_reported(tmp_path, monkeypatch, make_media):
    child(tmp_path, monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(CorruptAudioError, match="signal 11"):
        decode_file(make_media("a.wav", "pcm_s16le"))


def test_child_that_raises_is_reported(tmp_path, monkeypatch, make_media):
    child(tmp_path, monkeypatch, "raise KeyError('odd')")
    with pytest.raises(CorruptAudioError, match="KeyError: 'odd'"):
        decode_file(make_media("a.wav", "pcm_s16le"))


def test_child_that_never_stops_writing_is_stopped(tmp_path, monkeypatch, make_media):
    child(tmp_path, monkeypatch, "import os\nwhile True: os.write(1, bytes(65536))")
    with pytest.raises(AudioTooLongError):
        decode_file(make_media("a.wav", "pcm_s16le"), max_duration=10.0)


def test_secrets_of_the_environment_stay_here(tmp_path, monkeypatch, make_media):
    monkeypatch.setenv("HF_TOKEN", "secret")
    child(tmp_path, monkeypatch, "import os; raise KeyError(sorted(os.environ))")
    with pytest.raises(CorruptAudioError) as caught:
        decode_file(make_media("a.wav", "pcm_s16le"))
    assert "HF_TOKEN" not in str(caught.value)


def test_from_many_threads(make_media):
    paths = [make_media(f"{seconds}.wav", "pcm_s16le", seconds=seconds) for seconds in (0.5, 1.0, 1.5, 2.0)]
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        durations = [audio.duration for audio in pool.map(decode_file, paths * 2)]
    assert durations == [0.5, 1.0, 1.5, 2.0] * 2
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_room_imports_no_torch():
    import subprocess

    code = "import sys, models.audio; sys.exit(any(name.split('.')[0] in ('torch', 'av') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
