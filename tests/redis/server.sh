#!/bin/sh
# Prints the command of a redis-server or valkey-server: $POSTGATE_REDIS, that of the PATH, or that of
# Debian's package, which is unpacked into a folder of its own and not installed.
set -eu

if [ -n "${POSTGATE_REDIS:-}" ]; then echo "$POSTGATE_REDIS"; exit; fi
for name in redis-server valkey-server; do
  if path=$(command -v "$name"); then echo "$path"; exit; fi
done

command -v apt-get >/dev/null || { echo 'no redis-server' >&2; exit 1; }
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
folder=${LAB_CACHE:-/var/cache/lab}/redis-$release
mkdir -p "$folder"
exec 9> "$folder/lock"
flock 9
if [ ! -x "$folder/server" ]; then
  rm -rf "$folder/root"
  mkdir -p "$folder/root" "$folder/archives/partial" "$folder/lists/partial"
  # What the host lacks of the package and its dependencies. The host's own lists may be missing.
  get() {
    apt-get -qq -y -o Debug::NoLocking=1 -o Dir::Cache::archives="$folder/archives" \
      -o APT::Sandbox::User=root "$@" 9>&- >&2
  }
  get --no-install-recommends --download-only install redis-server || {
    get -o Dir::State::lists="$folder/lists" update
    get -o Dir::State::lists="$folder/lists" --no-install-recommends --download-only \
      install redis-server
  }
  for deb in "$folder"/archives/*.deb; do dpkg -x "$deb" "$folder/root" 9>&-; done
  rm -rf "$folder/archives" "$folder/lists"
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/root/usr/bin/redis-server "$@"\n' \
    "$(echo "$folder"/root/usr/lib/*-linux-gnu | tr ' ' :)" "$folder" > "$folder/server.new"
  chmod +x "$folder/server.new"
  "$folder/server.new" --version >&2 9>&-
  mv "$folder/server.new" "$folder/server"
fi
echo "$folder/server"
