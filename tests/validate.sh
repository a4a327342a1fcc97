#!/usr/bin/env bash
# Runs the tests of kernels on SwiftShader under the Khronos validation layer, which also checks that what one dispatch
# writes and another reads is synchronized. Fails if the layer reports anything, or was not there. Arguments go to
# `cargo test`; without any, the tests of all kernels run.
#
# Both come with Debian's package chromium; the layer of the package vulkan-validationlayers will do as well.
set -euo pipefail
cd "$(dirname "$0")/.."

driver=/usr/lib/chromium/vk_swiftshader_icd.json
layer=/usr/lib/chromium/libVkLayer_khronos_validation.so
[ -e "$layer" ] || layer=$(ldconfig -p | sed -n 's/.*=> \(.*libVkLayer_khronos_validation.so\)$/\1/p' | head -n 1)
[ -e "$layer" ] || layer=$(find /usr/lib -name libVkLayer_khronos_validation.so -print -quit)
if [ ! -e "$driver" ] || [ ! -e "$layer" ]; then
    echo "Not here: SwiftShader or the Khronos validation layer. On Debian both are in the package chromium." >&2
    exit 1
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/layer.json" <<END
{ "file_format_version": "1.1.0", "layer": {
    "name": "VK_LAYER_KHRONOS_validation", "type": "GLOBAL", "library_path": "$layer",
    "api_version": "1.3.0", "implementation_version": "1", "description": "validation" } }
END
# Information is asked for because the layer's first words, that it is active, are such.
cat >"$folder/vk_layer_settings.txt" <<END
khronos_validation.validate_core = true
khronos_validation.validate_sync = true
khronos_validation.enables = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.report_flags = error,warn,perf,info
khronos_validation.enable_message_limit = false
khronos_validation.log_filename = $folder/log
END
export VK_LAYER_PATH="$folder" VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LAYER_SETTINGS_PATH="$folder"
export VK_DRIVER_FILES="$driver" KILN_TEST_GPU=SwiftShader

if [ $# = 0 ]; then
    set -- --test kernels --test attention --test layouts --test products
fi
cargo test "$@"

cat "$folder"/log* >"$folder/all" 2>/dev/null || true
if ! grep -q "Khronos Validation Layer Active" "$folder/all"; then
    echo "The validation layer was not active." >&2
    exit 1
fi
grep -m 1 -A 12 "Khronos Validation Layer Active" "$folder/all"
echo "Messages by kind:"
grep -oE "(Validation|[A-Za-z]+) (Error|Warning|Information|Performance Warning): *\[[^]]*\]" "$folder/all" | sort | uniq -c | sort -rn
if grep -E -A 6 "(Validation|[A-Za-z]+) (Error|Warning):" "$folder/all"; then
    echo "The validation layer has something to say." >&2
    exit 1
fi
