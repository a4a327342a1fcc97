//! Opening devices, and looking at them, for callers that are not asynchronous.

use super::device::{Gpu, GpuOptions};
use super::room::Sight;
use crate::Result;
use pollster::block_on;

/// Opens the best GPU, or all that are of its kind: see [`Gpu::open`] and [`Gpu::open_all`].
pub fn open(options: &GpuOptions, all: bool) -> Result<Vec<Gpu>> {
    if all { block_on(Gpu::open_all(options)) } else { block_on(Gpu::open(options)).map(|gpu| vec![gpu]) }
}

/// Looks at what [`open`] would open: see [`Sight::find`] and [`Sight::find_all`].
pub fn look(options: &GpuOptions, all: bool) -> Result<Vec<Sight>> {
    if all { block_on(Sight::find_all(options)) } else { block_on(Sight::find(options)).map(|sight| vec![sight]) }
}
