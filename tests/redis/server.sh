#!/bin/sh
# Prints the command of a redis-server or valkey-server: $POSTGATE_REDIS, that of the PATH, or that of
# Debian's package, which is unpacked and not installed.
set -eu

if [ -n "${POSTGATE_REDIS:-}" ]; then echo "$POSTGATE_REDIS"; exit; fi
for name in redis-server valkey-server; do
  if path=$(command -v "$name"); then echo "$path"; exit; fi
done
exec "${0%/*}/../tool/fetch.sh" redis-server redis-server
