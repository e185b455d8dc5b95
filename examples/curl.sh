#!/usr/bin/env bash
# Asks a running service for everything that it does with a file. Usage: examples/curl.sh FILE [LANGUAGE]
set -euo pipefail

file="${1:?usage: examples/curl.sh FILE [LANGUAGE]}"
language="${2:-en}"
server="${AVIARY_URL:-http://127.0.0.1:8000}"

curl --fail-with-body --silent --show-error "$server/v1/models"
echo
model="$(curl --silent "$server/v1/models" | sed 's/.*"data":\[{"id":"\([^"]*\)".*/\1/')"

for format in text srt vtt json; do
  echo "--- $format"
  curl --fail-with-body --silent --show-error "$server/v1/audio/transcriptions" \
    -F "file=@$file" -F "model=$model" -F "language=$language" -F "response_format=$format"
  echo
done

echo "--- verbose_json with words"
curl --fail-with-body --silent --show-error "$server/v1/audio/transcriptions" \
  -F "file=@$file" -F "model=$model" -F "language=$language" -F response_format=verbose_json \
  -F "timestamp_granularities[]=word" -F "timestamp_granularities[]=segment"
echo
