#!/usr/bin/env bash
# Runs the tests of kernels, and a whole model, on SwiftShader under the Khronos validation layer, which also checks that
# what one dispatch writes and another reads is synchronized. Fails if the layer reports anything, or was not there.
# Arguments go to `cargo test` instead, to run other tests. Both SwiftShader and the layer come with Debian's package
# chromium.
set -euo pipefail
cd "$(dirname "$0")/.."

driver=/usr/lib/chromium/vk_swiftshader_icd.json
layer=/usr/lib/chromium/libVkLayer_khronos_validation.so
if [ ! -e "$driver" ] || [ ! -e "$layer" ]; then
    echo "SwiftShader or the Khronos validation layer is not here. On Debian both are in the package chromium." >&2
    exit 1
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/layer.json" <<END
{ "file_format_version": "1.1.0", "layer": {
    "name": "VK_LAYER_KHRONOS_validation", "type": "GLOBAL", "library_path": "$layer",
    "api_version": "1.3.0", "implementation_version": "1", "description": "validation" } }
END
# naga puts strides on arrays in workgroup memory (https://github.com/gfx-rs/wgpu/issues/7696), and wgpu silences this, too.
known=VUID-StandaloneSpirv-None-10684
# Information is asked for because the layer's first words, what it validates, are such. It says all on the standard
# output: every device that is opened would begin a file anew.
cat >"$folder/vk_layer_settings.txt" <<END
khronos_validation.validate_core = true
khronos_validation.validate_sync = true
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.report_flags = error,warn,perf,info
khronos_validation.enable_message_limit = false
END
export VK_LAYER_PATH="$folder" VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation VK_LAYER_SETTINGS_PATH="$folder"
export VK_DRIVER_FILES="$driver" KILN_TEST_GPU=SwiftShader

echo "Running under $layer"
run() {
    cargo test "$@" >>"$folder/all" || { tail -n 60 "$folder/all" && exit 1; }
}
if [ $# -gt 0 ]; then
    run "$@"
else
    run --test kernels --test attention --test layouts --test products
    run --test gpu_models committed_models
fi

grep "^test " "$folder/all"
if ! grep -qi "synchronization" "$folder/all"; then
    echo "The validation layer was not active, or does not check synchronization." >&2
    exit 1
fi
echo "What the layer says at first, and all messages by kind:"
grep -m 1 -A 7 -E "CURRENT-VALIDATION-ENABLED|Khronos Validation Layer Active" "$folder/all"
grep -oE "Validation [A-Za-z ]+: *\[[^]]*\]" "$folder/all" | sort | uniq -c | sort -rn
wrong=$(grep -nE "Validation [A-Za-z ]*(Error|Warning): " "$folder/all" | grep -v "$known" | cut -d: -f1 || true)
for line in $wrong; do
    sed -n "$line,$((line + 6))p" "$folder/all"
done | head -n 100
if [ -n "$wrong" ]; then
    echo "The layer finds something wrong." >&2
    exit 1
fi
