"""Transcribes a file through OpenAI's Python client.

Usage: python examples/client.py FILE [LANGUAGE]
"""

import sys
from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
model = client.models.list().data[0].id

transcript = client.audio.transcriptions.create(
    model=model,
    file=Path(sys.argv[1]),
    language=sys.argv[2] if len(sys.argv) > 2 else "en",
    response_format="verbose_json",
    timestamp_granularities=["word", "segment"],
)
print(transcript.text)
for word in transcript.words or []:
    print(f"{word.start:7.2f} {word.end:7.2f}  {word.word}")
