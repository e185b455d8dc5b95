"""What a client of Aviary sees: starts the service, transcribes every clip in examples/audio, stops the service.

Needs the environment of `make demo`. Exits with 0 if every clip came back with text and subtitles.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from live_server import ServerError, log_tail, running
from openai import OpenAI, OpenAIError

ROOT = Path(__file__).resolve().parent.parent
AVIARY = Path(sys.executable).parent / "aviary"
AUDIO_SUFFIXES = {".flac", ".m4a", ".mp3", ".ogg", ".opus", ".wav", ".webm"}


def main() -> int:
    """Runs the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="as in `aviary serve --model`; the embedded checkpoint if not given")
    parser.add_argument("--audio", type=Path, default=ROOT / "examples" / "audio", help="folder of clips")
    parser.add_argument("--ready-timeout", type=float, default=600, help="seconds that loading the model may take")
    arguments = parser.parse_args()

    clips = sorted(path for path in arguments.audio.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
    if not clips:
        print(f"no audio clips in {arguments.audio}", file=sys.stderr)
        return 1
    options = ["--model", arguments.model] if arguments.model else []
    with tempfile.TemporaryDirectory(prefix="aviary-demo-") as name:
        folder = Path(name)
        try:
            _say("Starting aviary serve " + " ".join(options))
            with running(AVIARY, options, folder=folder, ready_timeout_s=arguments.ready_timeout) as address:
                # Retries would hide a service that falls over.
                client = OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
                model = client.models.list().data[0].id
                _say(f"Sending {len(clips)} clips to {address}/v1/audio/transcriptions, model {model}")
                for clip in clips:
                    transcribe(client, model, clip)
                _say("Stopping the service")
        except ServerError as error:
            print(f"\nfailed: {error}", file=sys.stderr)
            return 1
        except (OpenAIError, ValueError) as error:
            print(f"\nfailed: {error}\n--- the end of the log ---\n{log_tail(folder / 'aviary.log')}", file=sys.stderr)
            return 1
    _say("Done")
    return 0


def transcribe(client: OpenAI, model: str, clip: Path) -> None:
    """Sends one clip and prints what came back.

    Args:
        client: Points to the service.
        model: Name of the model, as in ``/v1/models``.
        clip: Audio file; its name begins with the language code and a hyphen.

    Raises:
        ValueError: The answer has no text, no segments or no subtitles.
    """
    language = clip.name.split("-", 1)[0]
    start = time.perf_counter()
    transcript = client.audio.transcriptions.create(
        model=model,
        file=clip,
        language=language,
        response_format="verbose_json",
        timestamp_granularities=["segment"],
    )
    elapsed = time.perf_counter() - start
    print(f"\n{clip.name}  [{language}, {float(transcript.duration):.1f} s of audio in {elapsed:.1f} s]")
    print(f"  {transcript.text}")
    for segment in transcript.segments or []:
        print(f"  {segment.start:6.2f} - {segment.end:6.2f}  {segment.text.strip()}")
    subtitles = client.audio.transcriptions.create(model=model, file=clip, language=language, response_format="srt")
    print("  as SRT:")
    for line in subtitles.strip().splitlines():
        print(f"    {line}")
    if not (transcript.text and transcript.segments and "-->" in subtitles):
        raise ValueError(f"{clip.name} came back without text, segments or subtitles")


def _say(message: str) -> None:
    print(f"==> {message.strip()}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
