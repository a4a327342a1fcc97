#!/usr/bin/env bash
# Passes the tests. Arguments go to `cargo test`.
#
# The GPU backend is tested on software Vulkan: Mesa's, which is installed if there is no driver at all and that is
# possible without asking anybody, and SwiftShader, where the package chromium has brought it. Without any, this says what
# to do, and the tests that need one say that they skip.
#
# Long tests run where KILN_GOLDEN names the folder of the large golden set, as .ci/run does. Not run by this, but by one
# command each: tests/validate.sh, the kernels under the Khronos validation layer; and tests/pipelines.rs, what each
# pipeline costs a driver.
set -euo pipefail
cd "$(dirname "$0")/.."

packages="mesa-vulkan-drivers libvulkan1"

has_vulkan_driver() {
    [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] && return 0
    local folder
    for folder in /usr/share/vulkan/icd.d /usr/local/share/vulkan/icd.d /etc/vulkan/icd.d; do
        compgen -G "$folder/*.json" >/dev/null && return 0
    done
    return 1
}

install_software_vulkan() {
    command -v apt-get >/dev/null || return 1
    local as_root=""
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || return 1
        as_root="sudo -n"
    fi
    echo "No Vulkan driver here: installing Mesa's software Vulkan ($packages)."
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # both are lists of words
    { $as_root apt-get update -q && $as_root apt-get install -q -y --no-install-recommends $packages; } >/dev/null
}

if [ "$(uname)" = Linux ] && ! has_vulkan_driver; then
    if ! install_software_vulkan; then
        echo "No Vulkan driver here, and none could be installed. For the tests of the GPU backend install one, such as" >&2
        echo "Mesa's software Vulkan: on Debian and Ubuntu the packages $packages." >&2
    fi
fi

# Both in one process, so that every kernel is tested on two drivers that differ.
if [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ]; then
    drivers=""
    for driver in /usr/share/vulkan/icd.d/lvp_icd.*.json /usr/lib/chromium/vk_swiftshader_icd.json; do
        [ -e "$driver" ] && drivers="${drivers:+$drivers:}$driver"
    done
    [ -n "$drivers" ] && export VK_DRIVER_FILES="$drivers"
fi

# Examples are built first: some tests run them.
cargo build --examples
cargo test "$@"
# What is not in the default features.
if [ $# = 0 ]; then
    cargo test --features grammar,portable --test grammar --test portable
    cargo test --features grammar,portable --doc grammar
fi
