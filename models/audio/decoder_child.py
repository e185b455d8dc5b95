"""Media on standard input, raw mono float32 PCM at 16 kHz on standard output: the locked-down half of `decode`.

Runs as a script in a process of its own and imports nothing but PyAV, because it must start fast and because what it
reads comes from strangers. FFmpeg would follow playlists and references to local files and to the network; three
things stop it, each alone sufficient for that:

* only the demuxers and decoders listed here may run: no playlists, no devices, no image sequences, no video codecs;
* FFmpeg is given a Python file object, never a path, and no protocol that it could open a path with;
* the kernel refuses every further open file or socket (`RLIMIT_NOFILE`), process and written byte.

A refusal is one line on standard error, ``kind: message``, and exit status 1. The parent is `models.audio.decode`.
"""

import contextlib
import io
import os
import resource
import struct
import sys
from collections.abc import Callable
from typing import IO, NoReturn

import av
import av.logging
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.filter import Graph
from av.stream import Discard

SAMPLE_RATE = 16_000
BYTES_PER_SAMPLE = 4

# Address space in bytes. Python and FFmpeg map 0.13 GB; the rest is for files with large indices and frames.
MAX_ADDRESS_SPACE = 1 << 30

# An unprivileged user to become, if the parent is root: "nobody" by convention.
NOBODY = 65_534

# Output is collected to this many bytes before it is written: the capacity of a pipe.
BLOCK_BYTES = 1 << 16

# A hole in the timestamps longer than this becomes silence, so that times stay true to the file. Shorter ones are
# rounding; those longer than an hour are broken clocks.
MIN_GAP_S = 0.1
MAX_GAP_S = 3600.0

# Demuxers that read one file whole. "mov" knows references to other files too, but ignores them unless told otherwise.
FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,gsm,ircam,latm,loas,matroska,mlp,mov,"
    "mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,ogg,qcp,sln,sox,tak,truehd,tta,voc,w64,wav,wv,xwma"
)

# Decoders of sound.
DECODERS = (
    "aac,aac_fixed,aac_latm,ac3,ac3_fixed,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,"
    "adpcm_yamaha,alac,amrnb,amrwb,ape,dca,dsd_lsbf,dsd_lsbf_planar,dsd_msbf,dsd_msbf_planar,"
    "eac3,evrc,flac,g722,g723_1,g726,g726le,g729,gsm,gsm_ms,libopus,mlp,mp1,mp1float,mp2,"
    "mp2float,mp3,mp3adu,mp3adufloat,mp3float,mp3on4,mp3on4float,mpc7,mpc8,nellymoser,opus,"
    "pcm_alaw,pcm_bluray,pcm_dvd,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,"
    "pcm_s16be_planar,pcm_s16le,pcm_s16le_planar,pcm_s24be,pcm_s24le,pcm_s24le_planar,pcm_s32be,"
    "pcm_s32le,pcm_s32le_planar,pcm_s64be,pcm_s64le,pcm_s8,pcm_s8_planar,pcm_u16be,pcm_u16le,"
    "pcm_u24be,pcm_u24le,pcm_u32be,pcm_u32le,pcm_u8,qcelp,speex,tak,truehd,tta,vorbis,wavpack,"
    "wmalossless,wmapro,wmav1,wmav2,wmavoice"
)

# How files begin that are audio beyond doubt; if FFmpeg cannot open one, it is damaged. (offset, bytes)
SIGNATURES = (
    (0, b"RIFF"),
    (0, b"RF64"),
    (0, b"fLaC"),
    (0, b"OggS"),
    (0, b"ID3"),
    (0, b"FORM"),
    (0, b"caff"),
    (0, b"\x1a\x45\xdf\xa3"),  # Matroska, WebM
    (0, b"\x30\x26\xb2\x75"),  # ASF: WMA, WMV
    (4, b"ftyp"),  # MP4, M4A, MOV, 3GP
)


class RefusedError(Exception):
    """The file cannot be used.

    Attributes:
        kind: "not-audio", "corrupt" or "too-long".
        message: For the person who sent the file.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def main() -> None:
    """Decodes standard input. Arguments: most samples to write or -1 for no limit, and seconds of CPU time."""
    max_samples, cpu_seconds = int(sys.argv[1]), int(sys.argv[2])
    av.logging.set_level(None)
    rehearse()
    lock_down(cpu_seconds)
    try:
        with open(0, "rb", buffering=0, closefd=False) as source:
            decode(source, Output(lambda block: os.write(1, block), max_samples))
    except RefusedError as refused:
        _leave(f"{refused.kind}: {refused.message}")
    except MemoryError:
        _leave("corrupt: decoding the file takes too much memory")
    except BrokenPipeError:
        _leave("corrupt: nobody reads the output any more")


def _leave(report: str) -> NoReturn:
    os.write(2, report.encode(errors="replace")[:1000] + b"\n")
    # Not sys.exit: what is left of FFmpeg after a failure need not be taken apart.
    os._exit(1)


def rehearse() -> None:
    """Decodes a tiny recording of our own, because PyAV imports modules on first use, which takes open files."""
    # PCM, one channel, 8 kHz, 16 bits.
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16_000, 2, 16)
    data = struct.pack("<4sI16x", b"data", 16)
    decode(io.BytesIO(struct.pack("<4sI4s", b"RIFF", 4 + len(form + data), b"WAVE") + form + data), Output(len, -1))


def lock_down(cpu_seconds: int) -> None:
    """Gives up every right that decoding does not need. Standard input, output and error stay open."""
    if os.geteuid() == 0:
        # Root would be exempt from some limits. In a container without that user, root's limits have to do.
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NPROC, 0)
    _limit(resource.RLIMIT_AS, MAX_ADDRESS_SPACE)
    _limit(resource.RLIMIT_CPU, cpu_seconds)
    _limit(resource.RLIMIT_NOFILE, 3)


def _limit(what: int, value: int) -> None:
    """Lowers a limit for good; one that is lower already stays."""
    hard = resource.getrlimit(what)[1]
    lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (lowest, lowest))


class Output:
    """The PCM written so far, never more than allowed."""

    def __init__(self, write: Callable[[memoryview], int], max_samples: int) -> None:
        """``write`` takes a block and returns how many bytes of it it took, as `os.write` does."""
        self._write = write
        self._max_samples = max_samples
        self._pending = bytearray()
        self._samples = 0

    def write(self, pcm: bytes | memoryview) -> None:
        """Takes float32 samples; those beyond the limit end the decoding."""
        self._samples += len(pcm) // BYTES_PER_SAMPLE
        if 0 <= self._max_samples < self._samples:
            raise RefusedError("too-long", "the audio is longer than the limit")
        self._pending += pcm
        if len(self._pending) >= BLOCK_BYTES:
            self.flush()

    def silence(self, seconds: float) -> None:
        """Writes zeros, in blocks, so that the limit is noticed before they fill the memory."""
        left = round(seconds * SAMPLE_RATE) * BYTES_PER_SAMPLE
        while left > 0:
            block = min(left, BLOCK_BYTES)
            self.write(bytes(block))
            left -= block

    def flush(self) -> None:
        """Hands what is pending to the parent; blocks while the parent is busy."""
        view = memoryview(self._pending)
        while view:
            view = view[self._write(view) :]
        self._pending = bytearray()


def decode(source: IO[bytes], output: Output) -> None:
    """Decodes the best audio stream of a seekable file.

    Packets that cannot be decoded are skipped, as every player does, and a file may end early: what came before counts.
    If fewer packets can be decoded than not, the file is refused.

    Raises:
        RefusedError: See its kinds.
    """
    container = _open(source)
    stream = container.streams.best("audio")
    if not isinstance(stream, AudioStream):
        raise RefusedError("not-audio", "the file has no audio stream")
    if stream.codec_context.name not in DECODERS.split(","):
        raise RefusedError("corrupt", f"the codec {stream.codec_context.name} is not supported")
    good, bad = _decode_stream(container, stream, output)
    output.flush()
    # A declared length tells an empty recording from one whose sound is missing.
    promised = (stream.duration or 0) > 0 or (container.duration or 0) > 0
    if bad > good or (good == 0 and promised):
        raise RefusedError("corrupt", "the audio cannot be decoded")


def _open(source: IO[bytes]) -> InputContainer:
    """Opens a file object with nothing allowed that is not needed."""
    try:
        return av.open(
            source,
            mode="r",
            metadata_errors="replace",
            options={
                "format_whitelist": FORMATS,
                "codec_whitelist": DECODERS,
                "protocol_whitelist": "none",
            },
        )
    except (FFmpegError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        if _has_signature(source):
            raise RefusedError("corrupt", "the file is damaged or incomplete") from error
        raise RefusedError("not-audio", "the file is of no known audio or video format") from error


def _has_signature(source: IO[bytes]) -> bool:
    source.seek(0)
    head = source.read(16)
    return any(head[offset:].startswith(magic) for offset, magic in SIGNATURES)


def _decode_stream(container: InputContainer, stream: AudioStream, output: Output) -> tuple[int, int]:
    """Decodes one stream; returns how many packets could be decoded and how many could not."""
    stream.codec_context.thread_count = 1  # threads count as processes
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    has_video = len(container.streams.video) > 0
    clock = Clock(container.start_time / 1e6 if has_video and container.start_time is not None else None)
    resampler = Resampler(output.write)
    good = bad = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            break  # the container is broken from here on
        try:
            frames = packet.decode()
            good += bool(frames)
        except FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            bad += 1
            continue
        for frame in frames:
            gap = clock.gap(frame)
            if gap:
                resampler.finish()
                output.silence(gap)
            resampler.push(frame)
    resampler.finish()
    return good, bad


class Clock:
    """Compares the timestamps of frames with the audio that came out so far."""

    def __init__(self, origin: float | None) -> None:
        """Starts at ``origin``, in seconds of the container's clock; None for wherever the first frame is."""
        self._origin = origin
        self._elapsed = 0.0

    def gap(self, frame: AudioFrame) -> float:
        """Seconds of silence that belong before the frame; counts both as played."""
        missing = 0.0
        if frame.time is not None:
            if self._origin is None:
                self._origin = frame.time
            missing = frame.time - self._origin - self._elapsed
            if not -1.0 <= missing <= MAX_GAP_S:
                self._origin = frame.time - self._elapsed  # the clock was set anew
                missing = 0.0
            missing = missing if missing > MIN_GAP_S else 0.0
        self._elapsed += missing + frame.samples / frame.sample_rate
        return missing


class Resampler:
    """Any frames in, mono float32 at `SAMPLE_RATE` out; built anew when the shape of the frames changes."""

    def __init__(self, write: Callable[[memoryview], None]) -> None:
        self._write = write
        self._shape: tuple[str, str, int] | None = None
        self._graph: Graph | None = None

    def push(self, frame: AudioFrame) -> None:
        """Resamples one frame."""
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._graph is None or shape != self._shape:
            self.finish()
            self._shape, self._graph = shape, _resampling_graph(*shape, frame.layout.nb_channels)
        frame.pts = None
        self._graph.push(frame)
        self._drain(self._graph)

    def finish(self) -> None:
        """Writes what the filter still holds."""
        if self._graph is not None:
            self._graph.push(None)
            self._drain(self._graph)
            self._graph = None

    def _drain(self, graph: Graph) -> None:
        while True:
            try:
                frame = graph.pull()
            except (BlockingIOError, EOFError):
                return
            if not isinstance(frame, AudioFrame):
                raise TypeError(f"the filter gave a {type(frame).__name__}")
            self._write(memoryview(frame.planes[0])[: frame.samples * BYTES_PER_SAMPLE])


def _resampling_graph(sample_format: str, layout: str, rate: int, num_channels: int) -> Graph:
    """Mixes down by the standard matrix of the layout (ITU-R BS.775), scaled so that full-scale input cannot clip.

    Stereo becomes the mean of both channels; of 5.1 the centre counts most and the LFE channel not at all. Channels
    without known positions are averaged.
    """
    graph = Graph()
    graph.threads = 1
    source = graph.add("abuffer", sample_rate=str(rate), sample_fmt=sample_format, channel_layout=layout)
    chain = [source]
    if "channels" in layout:
        chain.append(graph.add("pan", "mono|c0<" + "+".join(f"c{i}" for i in range(num_channels))))
    # FFmpeg scales the matrix for integer samples only, unless told; then AAC would be 3 dB louder than WAV.
    chain.append(graph.add("aresample", osr=str(SAMPLE_RATE), ochl="mono", osf="flt", rematrix_maxval="1.0"))
    chain.append(graph.add("abuffersink"))
    graph.link_nodes(*chain).configure()
    return graph


if __name__ == "__main__":
    main()
