//! The kernel for attention over the texts of a batch: see `shaders/attend_texts.wgsl`.

use super::shader::Variant;
use crate::program::{Reach, Sees};
use crate::{Error, Result};
use bytemuck::{Pod, Zeroable};

/// The longest keys and values: a tile of them, with the scores, fits the memory of a workgroup on any device.
pub const MOST_SIZE: u32 = 512;
/// Tokens of a workgroup, and its lanes.
const BLOCK: u32 = 16;
const THREADS: u32 = 64;
/// What a workgroup takes of its memory at most.
const WORKGROUP_BYTES: u32 = 14 << 10;

/// The attention of a layer: what is fixed when a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TextAttention {
    /// Heads of queries.
    pub heads: u32,
    /// How many of them share a head of keys and values.
    pub group: u32,
    /// Numbers in a key: a multiple of 4.
    pub key_size: u32,
    /// Numbers in a value: likewise.
    pub value_size: u32,
    /// Scores are squeezed.
    pub softcap: bool,
    /// Scores fade with distance.
    pub fading: bool,
}

/// The parameters of the shader.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct TextParams {
    /// The slot of the queries.
    pub query_start: u32,
    /// From token to token.
    pub query_stride: u32,
    /// That of the keys.
    pub key_start: u32,
    /// Likewise.
    pub key_stride: u32,
    /// That of the values.
    pub value_start: u32,
    /// Likewise.
    pub value_stride: u32,
    /// That of the sums.
    pub out_start: u32,
    /// Likewise.
    pub out_stride: u32,
    /// How far back a token sees: see [`reach`].
    pub back: u32,
    /// How far ahead.
    pub ahead: u32,
    /// Multiplied with the products of queries and keys.
    pub scale: f32,
    /// Squeezes them.
    pub softcap: f32,
    /// What distance takes off them at most.
    pub most_bias: f32,
    /// The last power of two among the heads.
    pub even_heads: u32,
}

/// How far back, and how far ahead.
///
/// # Errors
/// If that depends on the position.
pub fn reach(sees: Sees) -> Result<(u32, u32)> {
    let count = |positions: usize| u32::try_from(positions).unwrap_or(u32::MAX);
    match sees {
        Sees::All => Ok((u32::MAX, u32::MAX)),
        Sees::Around(distance) => Ok((count(distance), count(distance))),
        Sees::Before(Reach::All) => Ok((u32::MAX, 0)),
        Sees::Before(Reach::Window(positions)) => Ok((count(positions.saturating_sub(1)), 0)),
        Sees::Before(Reach::Chunk(positions)) => Err(Error::Gpu {
            subject: "attention over texts".into(),
            found: format!("chunks of {positions} positions"),
            expected: "all positions, or a window: only the CPU has chunks".into(),
        }),
    }
}

impl TextAttention {
    /// The shader.
    ///
    /// # Errors
    /// If heads are of sizes that it cannot take.
    pub fn variant(&self) -> Result<Variant> {
        let TextAttention { key_size, value_size, .. } = *self;
        let fits = |size: u32| size > 0 && size.is_multiple_of(4) && size <= MOST_SIZE;
        if !fits(key_size) || !fits(value_size) {
            return Err(Error::Gpu {
                subject: "attention over texts".into(),
                found: format!("keys of {key_size} numbers, values of {value_size}"),
                expected: format!("multiples of 4 up to {MOST_SIZE}"),
            });
        }
        let longest = key_size.max(value_size);
        let tile = [32, 16, 8].into_iter().find(|tile| (longest + THREADS) * tile * 4 <= WORKGROUP_BYTES);
        let strips = |size: u32| (size / 4).div_ceil(4);
        Ok(Variant::new("attend_texts.wgsl", "uurrrrw")
            .flag("SOFTCAP", self.softcap)
            .flag("FADING", self.fading)
            .constant("GROUP", self.group)
            .constant("KEY_QUADS", key_size / 4)
            .constant("VALUE_QUADS", value_size / 4)
            .constant("KEY_STRIPS", strips(key_size))
            .constant("VALUE_STRIPS", strips(value_size))
            .constant("TILE", tile.unwrap_or(4))
            .constant("TILE_QUADS", longest / 4))
    }

    /// The workgroups for so many tokens.
    pub fn groups(&self, tokens: u32) -> [u32; 3] {
        [tokens.div_ceil(BLOCK), self.heads, 1]
    }
}

/// Every shader of this family, without tiers.
pub(super) fn variants() -> Vec<Variant> {
    let plain = TextAttention { heads: 12, group: 1, key_size: 32, value_size: 32, softcap: false, fading: false };
    let shapes = [
        plain,
        TextAttention { key_size: 24, value_size: 40, fading: true, ..plain },
        TextAttention { group: 3, key_size: 64, value_size: 64, ..plain },
        TextAttention { group: 4, key_size: 256, value_size: 256, softcap: true, ..plain },
    ];
    shapes.iter().filter_map(|shape| shape.variant().ok()).collect()
}
