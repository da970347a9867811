#!/bin/sh
# fetch.sh PROGRAM PACKAGE - prints a command that runs PROGRAM: the one of the PATH, or the one of
# Debian's PACKAGE, which is unpacked with what it needs into a folder of its own, and not installed.
set -eu

program=$1 package=$2
if path=$(command -v "$program"); then echo "$path"; exit; fi
command -v apt-get >/dev/null || { echo "no $program" >&2; exit 1; }
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
folder=${LAB_CACHE:-/var/cache/lab}/$package-$release
mkdir -p "$folder"
exec 9> "$folder/lock"
flock 9
if [ ! -x "$folder/$program" ]; then
  rm -rf "$folder/root"
  mkdir -p "$folder/root" "$folder/archives/partial" "$folder/lists/partial"
  # Downloads what the host lacks of the package and its dependencies.
  get() {
    apt-get -qq -y -o Debug::NoLocking=1 -o APT::Sandbox::User=root \
      -o Dir::Cache::archives="$folder/archives" "$@" 9>&- >&2
  }
  download() { get --no-install-recommends --download-only "$@" install "$package"; }
  # The host's own lists of packages may be missing or old.
  download || {
    get -o Dir::State::lists="$folder/lists" update
    download -o Dir::State::lists="$folder/lists"
  }
  for deb in "$folder"/archives/*.deb; do dpkg -x "$deb" "$folder/root" 9>&-; done
  rm -rf "$folder/archives" "$folder/lists"
  # The alternatives system, which is not there, would name php8.2 "php". A browser is started by a
  # script that names a path of the host.
  binary=$folder/root/usr/bin/$program
  [ -x "$binary" ] || binary=$(find "$folder/root/usr/bin" -name "$program[0-9]*.[0-9]*")
  browser=$folder/root/usr/lib/chromium/$program
  [ ! -x "$browser" ] || binary=$browser
  # What only takes space.
  find "$folder/root/usr/bin" -type f ! -path "$(readlink -f "$binary")" -delete
  rm -rf "$folder/root/usr/share"
  libraries=$(printf '%s:' "$folder"/root/usr/lib/*-linux-gnu "$folder"/root/lib/*-linux-gnu \
    "$folder"/root/usr/lib/*-linux-gnu/pulseaudio)
  cat > "$folder/new" <<END
#!/bin/sh
export LD_LIBRARY_PATH=$libraries RPM_CONFIGDIR=$folder/root/usr/lib/rpm
exec $binary "\$@"
END
  chmod +x "$folder/new"
  "$folder/new" --version >&2 9>&-
  mv "$folder/new" "$folder/$program"
fi
echo "$folder/$program"
