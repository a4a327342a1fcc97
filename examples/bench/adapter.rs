//! The facts of a GPU that results depend on: in a line for people, and as JSON.

use kiln::backend::gpu::Gpu;
use kiln::backend::gpu::wgpu::{Features, Limits};
use serde_json::{Value, json};

/// The adapter, how it is reached, and the tiers in use.
pub fn line(gpu: &Gpu) -> String {
    let info = gpu.info();
    let driver = [&info.driver[..], &info.driver_info].join(" ");
    format!("{} ({:?}, {:?}, {}): {}", info.name, info.device_type, info.backend, driver.trim(), gpu.tiers())
}

/// The same, and the limits that kernels are made for. Without a GPU the names stay, so that rows have the same columns.
pub fn fields(gpu: Option<&Gpu>) -> Vec<(&'static str, Value)> {
    let of = |get: &dyn Fn(&Gpu) -> Value| gpu.map_or(Value::Null, get);
    let limits = gpu.map(|gpu| gpu.device().limits());
    let limit = |get: &dyn Fn(&Limits) -> u64| limits.as_ref().map_or(Value::Null, |limits| json!(get(limits)));
    let has_timestamps = |gpu: &Gpu| gpu.device().features().contains(Features::TIMESTAMP_QUERY);
    vec![
        ("gpu_info", of(&|gpu| json!(gpu.info().name))),
        ("backends", gpu.map_or("CPU".into(), |gpu| json!(format!("{:?}", gpu.info().backend)))),
        ("gpu_type", of(&|gpu| json!(format!("{:?}", gpu.info().device_type)))),
        ("gpu_driver_name", of(&|gpu| json!(gpu.info().driver))),
        ("gpu_driver", of(&|gpu| json!(gpu.info().driver_info))),
        ("gpu_vendor", of(&|gpu| json!(gpu.info().vendor))),
        ("gpu_device", of(&|gpu| json!(gpu.info().device))),
        ("gpu_tiers", of(&|gpu| json!(gpu.tiers().to_string()))),
        ("gpu_timestamps", of(&|gpu| json!(has_timestamps(gpu)))),
        ("gpu_subgroup_min", of(&|gpu| json!(gpu.info().subgroup_min_size))),
        ("gpu_subgroup_max", of(&|gpu| json!(gpu.info().subgroup_max_size))),
        ("gpu_binding_bytes", of(&|gpu| json!(gpu.binding_bytes()))),
        ("gpu_buffer_bytes", limit(&|limits| limits.max_buffer_size)),
        ("gpu_workgroup_bytes", limit(&|limits| limits.max_compute_workgroup_storage_size.into())),
        ("gpu_workgroup_threads", limit(&|limits| limits.max_compute_invocations_per_workgroup.into())),
    ]
}
