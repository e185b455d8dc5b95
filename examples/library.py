"""Transcribes a file without a server.

Usage: python examples/library.py FILE [LANGUAGE] [MODEL]
"""

import sys
from pathlib import Path

from models import DecodingOptions, EngineError, Hypothesis, Utterance, load_engine
from models.audio import decode_file, merge, split

path = Path(sys.argv[1])
language = sys.argv[2] if len(sys.argv) > 2 else "en"
engine = load_engine(sys.argv[3] if len(sys.argv) > 3 else "canary-mini")

options = DecodingOptions(source_lang=language, target_lang=language)
chunks = split(decode_file(path), engine.card.max_chunk)

# Here all chunks go in at once; the service feeds them as room appears.
engine.admit([(ticket, Utterance(chunk, options)) for ticket, chunk in enumerate(chunks)])
hypotheses: dict[int, Hypothesis] = {}
while engine.active:
    for ticket, outcome in engine.step():
        if isinstance(outcome, EngineError):
            raise outcome
        hypotheses[ticket] = outcome

text, segments = merge([hypotheses[ticket] for ticket in sorted(hypotheses)])
print(text)
for segment in segments:
    print(f"{segment.start:7.2f} {segment.end:7.2f}  {segment.text}")
