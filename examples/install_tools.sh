#!/bin/sh
# Provide ffmpeg and ffprobe: by apt where they are missing and allowed, else say what to install.
set -eu
if command -v ffmpeg >/dev/null 2>&1 && command -v ffprobe >/dev/null 2>&1; then exit 0; fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends ffmpeg && exit 0
fi
echo "error: ffmpeg and ffprobe are not installed; run: sudo apt-get install ffmpeg" >&2
exit 2
