#!/bin/sh
# Makes debian:bookworm-slim and python:3.11-slim-bookworm out of Debian's own packages, under
# their official names, so that Dockerfiles build unmodified on a host without a registry.
# For Debian and Ubuntu, as root. fedbench runs it only when the images cannot be pulled.
set -eu

here=$(dirname "$0")
suite=bookworm
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if ! command -v debootstrap >/dev/null || ! [ -e "$keyring" ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -q -y --no-install-recommends debootstrap debian-archive-keyring
fi

# The mirror from which apt takes a suite here, else Debian's own.
mirror() {
    site=$(apt-get indextargets --format '$(SITE)' 'Origin: Debian' "Codename: $1" | head -n 1)
    echo "${site:-$2}"
}
main=$(mirror $suite http://deb.debian.org/debian)
security=$(mirror $suite-security http://deb.debian.org/debian-security)

# Not in /tmp, which is often mounted nodev or small.
work=$(mktemp -d /var/tmp/fedbench-base.XXXXXX)
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM
root=$work/rootfs

debootstrap --variant=minbase --keyring="$keyring" $suite "$root" "$main"

stanza() {
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' "$1" "$2" "$keyring"
}
rm "$root/etc/apt/sources.list"
{
    stanza "$main" "$suite $suite-updates"
    stanza "$security" $suite-security
} > "$root/etc/apt/sources.list.d/debian.sources"

# What the official image has too: no apt caches, no documentation, no service starts.
cat > "$root/etc/apt/apt.conf.d/docker-clean" <<'CONF'
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb"; };
Acquire::Languages "none";
CONF
cat > "$root/etc/dpkg/dpkg.cfg.d/docker" <<'CONF'
path-exclude /usr/share/doc/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
CONF
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
(
    cd "$root"
    rm -rf usr/share/doc/* usr/share/info/* usr/share/locale/* usr/share/man/* \
        var/cache/apt/*.bin var/cache/apt/archives/*.deb var/lib/apt/lists/* var/log/*.log
)

tar -C "$root" --numeric-owner -c . | docker import --change 'CMD ["bash"]' \
    --change 'LABEL org.opencontainers.image.description="fedbench: stand-in out of Debian packages"' \
    - debian:$suite-slim

# Without a value, docker takes the proxies from the environment, if there are any.
docker build --progress=plain --tag python:3.11-slim-$suite --build-arg http_proxy \
    --build-arg https_proxy --build-arg no_proxy --load - < "$here/python.Dockerfile"
