#!/usr/bin/env bash
# Asks a running service for everything that it does with a file. Usage: examples/curl.sh FILE [LANGUAGE] [MODEL]
set -euo pipefail

file="${1:?usage: examples/curl.sh FILE [LANGUAGE] [MODEL]}"
language="${2:-en}"
model="${3:-canary-mini}"
server="${AVIARY_URL:-http://127.0.0.1:8000}"

ask() { curl --fail-with-body --silent --show-error "$@" && echo; }
speech() { ask "$server/v1/audio/transcriptions" -F "file=@$file" -F "model=$model" -F "language=$language" "$@"; }

ask "$server/v1/models"
for format in text srt vtt json; do
  echo "--- $format"
  speech -F "response_format=$format"
done
echo "--- verbose_json with words"
speech -F response_format=verbose_json -F "timestamp_granularities[]=word" -F "timestamp_granularities[]=segment"
