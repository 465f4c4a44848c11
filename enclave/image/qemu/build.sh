#!/usr/bin/env bash
# Builds a Nitro Enclave without AWS: build.sh OUT fills OUT with what tests/src/qemu.rs boots images with.
#
#   OUT/bin/qemu-system-x86_64   QEMU with the machine nitro-enclave, which no Debian package has
#   OUT/bin/vhost-device-vsock   its vsock device, with the parent at the context identifier 3, as on AWS
#   OUT/fw                       firmware, from Debian's package of it
#   OUT/kernel/bzImage           the pinned kernel (../kernel/build.sh)
#
# Tried on Debian 12, x86-64. Needs cargo, 5 GB of disk, about 25 CPU-minutes, and:
#   apt-get install -y bc bison debian-archive-keyring dpkg-dev flex gcc libcbor-dev libelf-dev libfdt-dev libglib2.0-dev \
#       libgnutls28-dev libssl-dev make ninja-build patch pkg-config python3-pip python3-venv xz-utils zlib1g-dev
set -euo pipefail
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
out=$(realpath -m "${1:?usage: build.sh OUT}")
# shellcheck source=enclave/image/qemu/debian.sh
source "$here/debian.sh"

readonly qemu=1:10.0.13+ds-0+deb13u1 vsock_device=0.3.0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"/{bin,fw,kernel}

build_qemu() {
    debian_source "$work" "qemu=$qemu"
    cd "$work/qemu"
    patch -p1 <"$here/nsm-test-signer.patch"
    echo CONFIG_NITRO_ENCLAVE=y >configs/devices/x86_64-softmmu/nitro.mak
    # Debian's sources are without QEMU's copies of these.
    python3 -m pip download --quiet --no-deps --dest python/wheels meson==1.5.0 pycotap==1.3.1
    mkdir build && cd build
    ../configure --target-list=x86_64-softmmu --without-default-features --without-default-devices \
        --with-devices-x86_64=nitro --enable-system --enable-tcg --enable-kvm --enable-fdt=system --enable-gnutls \
        --enable-libcbor --enable-vhost-user --disable-docs --disable-werror --disable-install-blobs
    ninja qemu-system-x86_64
    strip -o "$out/bin/qemu-system-x86_64" qemu-system-x86_64
}

# Its crate is a program, so it cannot be a dependency; cargo fetches and checks its source all the same.
build_vsock_device() {
    mkdir -p "$work/fetch/src" && cd "$work/fetch"
    touch src/lib.rs
    printf '[package]\nname = "fetch"\nedition = "2021"\n[dependencies]\nvhost-device-vsock = "=%s"\n' "$vsock_device" >Cargo.toml
    cargo vendor --quiet vendor >/dev/null
    cp -r vendor/vhost-device-vsock "$work/vsock" && cd "$work/vsock"
    # The host is 2 wherever else virtual sockets are used, and 3 for Nitro Enclaves.
    grep -q 'VSOCK_HOST_CID: u64 = 2;' src/vhu_vsock.rs
    sed -i 's/VSOCK_HOST_CID: u64 = 2;/VSOCK_HOST_CID: u64 = 3;/' src/vhu_vsock.rs
    cargo build --release --locked --quiet
    strip -o "$out/bin/vhost-device-vsock" target/release/vhost-device-vsock
}

fetch_firmware() {
    cd "$work"
    apt-get download qemu-system-data
    dpkg-deb -x qemu-system-data_*.deb firmware
    cp firmware/usr/share/qemu/{qboot.rom,linuxboot_dma.bin} "$out/fw"
}

(build_qemu)
(build_vsock_device)
(fetch_firmware)
"$here/../kernel/build.sh" "$out/kernel"
echo "CLOISTER_QEMU_NE=$out cargo test -p cloister-e2e --test qemu"
