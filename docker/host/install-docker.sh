#!/bin/sh
# Installs Docker Engine, Compose v2 and buildx from the distribution's own packages.
# For Debian and Ubuntu, as root. fedbench runs it only when no Docker is found.
set -eu

. /etc/os-release
export DEBIAN_FRONTEND=noninteractive

# Bookworm's docker.io is 20.10, without Compose v2 and buildx; trixie's runs on bookworm
# except for runc, which asks for a newer libc6.
pin_trixie() {
    cat > /etc/apt/sources.list.d/fedbench-trixie.sources <<SOURCES
Types: deb
URIs: $1
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
    cat > /etc/apt/preferences.d/fedbench-trixie <<PINS
Package: *
Pin: release n=trixie
Pin-Priority: -1

Package: docker.io docker-cli docker-compose docker-buildx containerd
Pin: release n=trixie
Pin-Priority: 990
PINS
}

# The mirror that apt already uses for the base suite, so that no host name is guessed.
mirror() {
    apt-get indextargets --format '$(SITE)' "Release: $VERSION_CODENAME" | head -n 1
}

case "$ID:${VERSION_CODENAME:-}" in
    debian:bookworm) pin_trixie "$(mirror)"; packages="docker.io docker-cli docker-compose docker-buildx runc" ;;
    debian:*)        packages="docker.io docker-cli docker-compose docker-buildx" ;;
    ubuntu:*)        packages="docker.io docker-compose-v2 docker-buildx" ;;
    *) echo "install-docker: neither Debian nor Ubuntu: $ID" >&2; exit 1 ;;
esac

# iptables: dockerd cannot set up a bridge network without it. Where there is no systemd, these
# packages start no daemon; fedbench does.
apt-get update -q
apt-get install -q -y --no-install-recommends $packages iptables ca-certificates
