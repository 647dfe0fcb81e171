#!/usr/bin/env bash
# kernel_sources.sh FOLDER PACKAGE...: unpack into FOLDER what benchframe compares itself with, of Debian's packages of
# kernel sources (linux-source-6.1, linux-source-6.12). Packages that are there already are left alone. Nothing is
# installed; apt-get download needs no root. With SUITE=trixie-backports (or sid) from that suite of Debian's, whose list
# of packages is read for this alone: apt's own settings stay as they are.
set -euo pipefail
folder="$1"
shift
mkdir -p "$folder"
for package in "$@"; do
  [ -d "$folder/$package" ] && continue
  command -v apt-get >/dev/null || { echo "kernel_sources.sh: no apt-get here; unpack $package into $folder yourself" >&2; exit 3; }
  work="$(mktemp -d "$folder/.unpack-XXXXXX")"
  trap 'rm -rf "$work"' EXIT
  echo "fetching $package (150 MB) and unpacking parts of it into $folder"
  options=(-qq -o APT::Sandbox::User=root) # as root apt would warn that its user cannot enter the folder
  if [ -n "${SUITE:-}" ]; then
    mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $SUITE main" >"$work/apt/one.list"
    here="$(cd "$work/apt" && pwd)"
    options+=(-o "Dir::Etc::sourcelist=$here/one.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State=$here"
      -o Dir::State::status=/dev/null -o "Dir::Cache=$here" -o Acquire::Languages=none)
    apt-get "${options[@]}" update
  fi
  ask() { (cd "$work" && apt-get download "${options[@]}" "$package"); }
  ask 2>/dev/null || { [ "$(id -u)" != 0 ] || apt-get update -qq; } && { compgen -G "$work/*.deb" >/dev/null || ask; } ||
    { echo "kernel_sources.sh: apt cannot give $package; name another source tree: make kernel-judge SOURCES=DIR" >&2; exit 3; }
  dpkg-deb --fsys-tarfile "$work"/*.deb | tar -xO "./usr/src/$package.tar.xz" | tar -xJ -C "$work" --wildcards \
    "$package/Makefile" "$package/lib/maple_tree.c" "$package/lib/rbtree.c" "$package/mm/vma*" \
    "$package"/include/linux/{maple_tree,rbtree\*,list,poison}.h "$package/tools/testing/vma/*" \
    "$package/tools/memory-model/litmus-tests/*" 2>"$work/tar" || true # 6.1 lacks some
  [ -f "$work/$package/lib/maple_tree.c" ] || { cat "$work/tar" >&2; exit 3; }
  mv "$work/$package" "$folder/$package"
  rm -rf "$work"
done
