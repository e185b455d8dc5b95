"""Media that tries to make the decoder open other files, or start or write something."""

import io
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import av
import pytest

from models.audio import decode as decode_module
from models.audio import decoder_child
from models.audio.decode import decode_file
from models.errors import AudioError, NotAudioError

ATTACKS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\n{target}\n#EXT-X-ENDLIST\n",
    "hls-file": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\nfile://{target}\n#EXT-X-ENDLIST\n",
    "hls-variant": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
    "hls-key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n',
    "hls-url": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\n{url}\n#EXT-X-ENDLIST\n",
    "m3u": "#EXTM3U\n{target}\n",
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "dash": (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT10S"><Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" '
        'bandwidth="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>\n'
    ),
    "smil": '<smil><body><audio src="{target}"/></body></smil>\n',
    "asx": '<asx version="3.0"><entry><ref href="{url}"/></entry></asx>\n',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    "reference": "rtsptext\r\n{url}\r\n",
    "image-list": "{target}\n" * 50,
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{target}"/></svg>',
}


@pytest.fixture
def target(make_media) -> Path:
    """A recording that nobody may hear, and which would decode well."""
    return make_media("secret.wav", "pcm_s16le")


@pytest.fixture
def url():
    """An address that notes who calls it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        callers: list[object] = []

        def listen() -> None:
            try:
                while True:
                    callers.append(server.accept()[1])
            except OSError:
                return

        thread = threading.Thread(target=listen)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/audio.wav"
        thread.join()
        assert callers == []


@pytest.mark.parametrize("name", ATTACKS)
def test_playlists_are_not_audio(tmp_path, target, url, name):
    attack = tmp_path / "attack.m3u8"
    attack.write_text(ATTACKS[name].format(target=target, url=url))
    os.utime(target, (0, target.stat().st_mtime))
    with pytest.raises(NotAudioError):
        decode_file(attack)
    assert target.stat().st_atime == 0, "the target was read"


def test_reading_would_be_noticed(target):
    """The control for the test above: here, reading a file changes its time of access."""
    os.utime(target, (0, target.stat().st_mtime))
    decode_file(target)
    if target.stat().st_atime == 0:
        pytest.skip("this file system does not keep times of access")


@pytest.mark.parametrize("name", ATTACKS)
def test_playlists_are_refused_without_the_kernels_help(target, url, name):
    """The allow-lists alone suffice."""
    attack = io.BytesIO(ATTACKS[name].format(target=target, url=url).encode())
    with pytest.raises(decoder_child.RefusedError) as caught:
        decoder_child.decode(attack, decoder_child.Output(len, -1))
    assert caught.value.kind == "not-audio"


def test_the_lists_name_what_this_ffmpeg_has():
    """A misspelt name would be a format refused for ever."""
    formats = {name for names in av.formats_available for name in names.split(",")}
    assert set(decoder_child.FORMATS.split(",")) <= formats
    for name in decoder_child.DECODERS.split(","):
        codec = av.Codec(name, "r")
        assert (codec.type, codec.name) == ("audio", name)


def run_locked_down(code: str) -> str:
    """Runs code in a child behind `lock_down` and returns what it prints, or the name of its exception."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(decode_module.__file__).parent)!r})\n"
        "import os, socket, resource, decoder_child\n"
        "decoder_child.rehearse(); decoder_child.lock_down(1)\n"
        f"try:\n    {code}\nexcept BaseException as error:\n    os.write(1, type(error).__name__.encode())\n"
    )
    run = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, check=False, timeout=30)
    return run.stdout.decode() or f"status {run.returncode}: {run.stderr.decode()}"


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("open('/etc/hostname')", "OSError"),
        ("socket.socket()", "OSError"),
        ("os.fork()", "BlockingIOError"),
        ("os.execv('/bin/true', ['true'])", "status"),
        ("bytearray(1 << 30)", "MemoryError"),
        ("resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))", "ValueError"),
        ("os.write(1, str(os.geteuid() == 0).encode())", "False"),
    ],
)
def test_child_has_no_rights(code, outcome):
    result = run_locked_down(code)
    if code.startswith("os.execv"):
        # A new program could be had, but not its libraries: they take an open file.
        assert result.startswith("status")
        assert not result.startswith("status 0")
    else:
        assert result == outcome


def test_child_has_little_time():
    assert run_locked_down("exec('while True: pass')").startswith("status -")


@pytest.mark.parametrize("seed", range(6))
def test_damaged_files_never_do_worse_than_an_error(make_media, seed):
    """Bytes flipped at random in files of several kinds: an AudioError or some audio, never anything else."""
    import numpy as np

    kinds = [
        ("a.flac", "flac"), ("a.m4a", "aac"), ("a.webm", "libopus"), ("a.mp3", "libmp3lame"),
        ("a.wav", "adpcm_ms"), ("a.mkv", "aac"),
    ]  # fmt: skip
    rng = np.random.default_rng(seed)
    name, codec = kinds[seed]
    path = make_media(name, codec, rate=48_000)
    content = bytearray(path.read_bytes())
    for share in (0.001, 0.01, 0.1):
        damaged = bytearray(content)
        for position in rng.integers(0, len(damaged), max(1, int(share * len(damaged)))):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            audio = decode_file(path, max_duration=60.0, timeout=20.0)
        except AudioError:
            continue
        assert np.isfinite(audio.samples).all()
