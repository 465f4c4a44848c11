#!/usr/bin/env bash
# Builds the enclave's kernel from Debian's sources: build.sh OUT writes OUT/bzImage.
#
# Two builds with one compiler are byte-identical. The pinned digest (../src/kernel.rs) is that of Debian 12's gcc 12.2.
# Tried on Debian 12. Needs 2 GB of disk, about 12 CPU-minutes, and:
#   apt-get install -y bc bison debian-archive-keyring dpkg-dev flex gcc libelf-dev libssl-dev make xz-utils
set -euo pipefail
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
out=$(realpath -m "${1:?usage: build.sh OUT}")
# shellcheck source=enclave/image/qemu/debian.sh
source "$here/../qemu/debian.sh"

# A later one has another digest. debian.sh says how to get this one when Debian's mirrors have it no longer.
readonly version=6.12.107-1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debian_source "$work" "linux=$version"

export KBUILD_BUILD_TIMESTAMP=1970-01-01 KBUILD_BUILD_USER=x KBUILD_BUILD_HOST=x
cd "$work/linux"
make -s O="$work/build" tinyconfig
cat "$here/config" >>"$work/build/.config"
make -s O="$work/build" olddefconfig 2>/dev/null
# What kconfig does not know, or cannot have, it drops without a word.
if lacking=$(grep -E '^(CONFIG_|# CONFIG_.* is not set)' "$here/config" | grep -vxFf "$work/build/.config"); then
    printf 'kconfig does not take:\n%s\n' "$lacking" >&2
    exit 1
fi
make -s O="$work/build" -j"$(nproc)" bzImage

mkdir -p "$out"
cp "$work/build/arch/x86/boot/bzImage" "$out/bzImage"
digest=$(sha256sum "$out/bzImage" | cut -d' ' -f1)
echo "$digest  $out/bzImage"
if ! grep -q "\"$digest\"" "$here/../src/kernel.rs"; then
    echo "this is not the pinned kernel (enclave/image/src/kernel.rs): it was built with another compiler than Debian 12's:" >&2
    gcc --version | head -n 1 >&2
    exit 1
fi
