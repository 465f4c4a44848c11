# shellcheck shell=bash
# Sourced by the build scripts: source packages of Debian 13 (trixie), by exact version, without touching this machine's apt.

#
# DEBIAN_SNAPSHOT=20261127T000000Z takes them from snapshot.debian.org as they were then, once Debian's mirrors have newer ones.

# debian_source FOLDER PACKAGE=VERSION: unpacks it, Debian's patches applied, to FOLDER/PACKAGE. apt checks its signature.
debian_source() {
    local folder=$1 package=${2%%=*} mirror=${DEBIAN_MIRROR:-http://deb.debian.org} at=
    if [[ -n ${DEBIAN_SNAPSHOT:-} ]]; then
        mirror=https://snapshot.debian.org/archive at=/$DEBIAN_SNAPSHOT
    fi
    local apt="$folder/apt"
    mkdir -p "$apt"/{lists,cache}/partial
    printf 'deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s\n' \
        "$mirror/debian$at trixie main" "$mirror/debian$at trixie-updates main" \
        "$mirror/debian-security$at trixie-security main" >"$apt/sources.list"
    local options=(-qq -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=)
    [[ -z $at ]] || options+=(-o Acquire::Check-Valid-Until=false)
    apt-get "${options[@]}" update
    (cd "$folder" && apt-get "${options[@]}" source --download-only "$2")
    dpkg-source --no-copy -x "$folder/$package"_*.dsc "$folder/$package"
}
