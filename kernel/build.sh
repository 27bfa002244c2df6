#!/usr/bin/env bash
# Builds the guest kernel and prints the path of the image. What is built already, from the same inputs, is only found.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: kernel/build.sh [--arch x86_64|aarch64] [--check]

Builds the guest kernel from Debian's linux-source-6.12 and kernel/*.config, and prints the path of the image (x86_64:
the ELF file vmlinux; aarch64: Image) on standard output; beside it lie config and System.map. It takes 5 to 10 minutes
of two cores, once: the result is kept outside the checkout under the hash of everything that went into it. Without the
source or a compiler, the newest image of the same configuration is taken. Nothing is downloaded: scripts/setup installs
the source. Two calls at once are safe: one builds, the other waits.

  --arch ARCH  default: this machine's. Another needs its cross compiler (aarch64-linux-gnu-gcc)
  --check      build nothing; fail if a line of the configuration does not take effect

  SBX_KERNEL_JOBS  how many compilers run side by side (default: one per processor)
  XDG_CACHE_HOME   images are kept in sbx/kernel below it (default: ~/.cache)
TEXT
}

say() { printf 'kernel: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

source_package=linux-source-6.12
arch=$(uname -m)
check=
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --arch) [ $# -ge 2 ] || { usage >&2; exit 2; }; arch=$2; shift 2 ;;
        --check) check=yes; shift ;;
        *) usage >&2; exit 2 ;;
    esac
done
case $arch in
    x86_64) kernel_arch=x86_64 image=vmlinux built=vmlinux ;;
    aarch64) kernel_arch=arm64 image=Image built=arch/arm64/boot/Image ;;
    *) die "there is no configuration for $arch: x86_64 and aarch64 have one" ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
configs=("$here/common.config" "$here/$arch.config")
cross=
[ "$arch" = "$(uname -m)" ] || cross=$arch-linux-gnu-
archive=/usr/src/$source_package.tar.xz
cache=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/sbx/kernel
umask 022

short_hash() { sha256sum | cut -c1-16; }
lacks() { ! command -v "$1" >/dev/null; }

missing() { # what building needs and this machine has not
    local tool
    [ -e "$archive" ] || printf '%s ' "$source_package"
    for tool in make flex bison bc xz; do if lacks "$tool"; then printf '%s ' "$tool"; fi; done
    # The configuration alone needs no compiler for another processor.
    if [ -z "$check" ] && lacks "${cross}gcc"; then printf '%sgcc ' "$cross"; fi
    lacks gcc && printf 'gcc '
    [ "$arch" != x86_64 ] || [ -e /usr/include/gelf.h ] || printf 'libelf-dev '
}

unpack() { # DIR: the source into DIR/source
    mkdir "$1/source"
    tar -xJf "$archive" -C "$1/source" --strip-components=1
}

# Every line of our files must stand in the result: an option that was renamed, or whose condition is not met, would
# else be dropped without a word.
configure() { # DIR
    local wrong
    mkdir "$1/out"
    cat "${configs[@]}" >"$1/fragment"
    make -s -C "$1/source" O="$1/out" ARCH=$kernel_arch ${compiler:+CROSS_COMPILE=$compiler} \
        KCONFIG_ALLCONFIG="$1/fragment" allnoconfig >&2
    wrong=$(awk -F= '
        FNR == NR { if (/^CONFIG_/) have[$1] = substr($0, length($1) + 2); next }
        /^CONFIG_/ {
            want = substr($0, length($1) + 2); is = ($1 in have) ? have[$1] : "n"
            if (want != is) printf "  %s: wanted %s, is %s\n", $1, want, is
        }' "$1/out/.config" "$1/fragment")
    [ -z "$wrong" ] || die "these lines of the configuration take no effect:
$wrong"
}

compile() { # DIR
    # The same inputs give the same bytes: no date, no name and no path of the machine that builds.
    local stamp
    stamp=$(date -u -d "@$(stat -c %Y "$1/source/Makefile")" '+%a %b %e %H:%M:%S UTC %Y')
    make -s -C "$1/source" O="$1/out" ARCH=$kernel_arch ${cross:+CROSS_COMPILE=$cross} -j"${SBX_KERNEL_JOBS:-$(nproc)}" \
        KBUILD_BUILD_TIMESTAMP="$stamp" KBUILD_BUILD_USER=sbx KBUILD_BUILD_HOST=sbx KBUILD_BUILD_VERSION=1 \
        KCFLAGS="-ffile-prefix-map=$1/source=. -ffile-prefix-map=$1/out=." "${built##*/}" >"$1/log" 2>&1 || {
        tail -n 40 "$1/log" >&2
        die "the kernel did not compile"
    }
}

# DIR FINAL: what is kept, moved into place in one step
keep() {
    mkdir "$1/keep"
    cp "$1/out/$built" "$1/keep/$image"
    [ "$image" != vmlinux ] || "${cross}strip" -s "$1/keep/$image"
    cp "$1/out/.config" "$1/keep/config"
    cp "$1/out/System.map" "$1/keep/System.map"
    mv -T "$1/keep" "$2"
}

work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

lack=$(missing)
if [ -n "$check" ]; then
    [ -z "$lack" ] || die "missing: $lack(scripts/setup installs what this needs)"
    work=$(mktemp -d)
    # Kconfig asks the compiler what it can; without one for the other processor, the host's stands in.
    compiler=$cross
    if [ -n "$cross" ] && lacks "${cross}gcc"; then compiler=; fi
    unpack "$work"
    configure "$work"
    say "every line of ${configs[*]##*/} takes effect"
    exit 0
fi

inputs=$(cat "${configs[@]}" "$here/build.sh" | short_hash)
prefix=$cache/linux-$arch-$inputs
if [ -n "$lack" ]; then
    newest=$(ls -dt "$prefix"-*/"$image" 2>/dev/null | head -n 1)
    [ -n "$newest" ] || die "not built yet, and to build it these are missing: $lack(run scripts/setup)"
    printf '%s\n' "$newest"
    exit 0
fi
version=$(dpkg-query -W -f '${Version}' "$source_package" 2>/dev/null) || version=$(stat -c %s-%Y "$archive")
tools=$({ "${cross}gcc" --version; "${cross}ld" --version; } | short_hash)
final=$prefix-$version-$tools
mkdir -p "$cache"
if [ ! -e "$final/$image" ]; then
    exec 9>"$cache/lock-$arch"
    flock -n 9 || { say "another build is under way; waiting for it"; flock 9; }
fi
if [ ! -e "$final/$image" ]; then
    say "building $source_package $version for $arch: 5 to 10 minutes, once"
    # Leftovers of a build that was killed: the lock says that nobody works in them.
    rm -rf "$cache/building-$arch-"*
    work=$(mktemp -d "$cache/building-$arch-XXXXXX")
    compiler=$cross
    unpack "$work"
    configure "$work"
    compile "$work"
    keep "$work" "$final"
fi
printf '%s\n' "$final/$image"
