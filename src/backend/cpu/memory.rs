//! Keys and values in memory: for each attention layer, one run of bytes with a place for every position.
//!
//! A place holds all heads' keys and then all heads' values, each head in the format that the cache is kept in.

use crate::Result;
use crate::error::Error;
use crate::gguf::TensorType;
use crate::program::{KeyValues, KeyValuesId, Program};
use crate::quant::Format;

/// The keys and values of one sequence.
#[derive(Debug, Clone)]
pub struct KvMemory {
    format: &'static Format,
    layers: Vec<Layer>,
    positions: usize,
}

#[derive(Debug, Clone)]
struct Layer {
    shape: KeyValues,
    key_bytes: usize,
    value_bytes: usize,
    bytes: Vec<u8>, // [positions, heads, key_bytes + value_bytes]
}

impl KvMemory {
    /// Room for a number of positions. Formats are F32, F16, and Q8_0 where heads are multiples of 32.
    pub fn new(program: &Program, format: TensorType, positions: usize) -> Result<Self> {
        if !matches!(format, TensorType::F32 | TensorType::F16 | TensorType::Q8_0) {
            return Err(Error::Model {
                subject: "cache format".into(),
                found: format.name().into(),
                expected: "F32, F16 or Q8_0".into(),
            });
        }
        let format = Format::of(format)?;
        let layer = |shape: &KeyValues| {
            let (key_bytes, value_bytes) = (format.bytes_for(shape.key_size)?, format.bytes_for(shape.value_size)?);
            let bytes = vec![0; positions * shape.heads * (key_bytes + value_bytes)];
            Ok(Layer { shape: *shape, key_bytes, value_bytes, bytes })
        };
        let layers = program.key_values.iter().map(layer).collect::<Result<_>>()?;
        Ok(KvMemory { format, layers, positions })
    }

    /// How many positions there is room for.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Puts the keys and values of a position in their place.
    pub fn store(&mut self, id: KeyValuesId, position: usize, keys: &[f32], values: &[f32]) -> Result<()> {
        let Layer { shape, key_bytes, value_bytes, bytes } = &mut self.layers[id.0];
        let head_bytes = *key_bytes + *value_bytes;
        let place = &mut bytes[position * shape.heads * head_bytes..][..shape.heads * head_bytes];
        for (head, place) in place.chunks_mut(head_bytes).enumerate() {
            let (key, value) = place.split_at_mut(*key_bytes);
            self.format.encode(&keys[head * shape.key_size..][..shape.key_size], key)?;
            self.format.encode(&values[head * shape.value_size..][..shape.value_size], value)?;
        }
        Ok(())
    }

    /// Decodes the keys and the values of one head at some positions, one after the other.
    pub fn load(
        &self,
        id: KeyValuesId,
        head: usize,
        positions: std::ops::Range<usize>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let Layer { shape, key_bytes, value_bytes, bytes } = &self.layers[id.0];
        let mut keys = vec![0.0; positions.len() * shape.key_size];
        let mut values = vec![0.0; positions.len() * shape.value_size];
        let rows = keys.chunks_mut(shape.key_size).zip(values.chunks_mut(shape.value_size));
        for (position, (key, value)) in positions.zip(rows) {
            let place = &bytes[(position * shape.heads + head) * (key_bytes + value_bytes)..];
            let (key_place, rest) = place.split_at(*key_bytes);
            self.format.decode(key_place, key)?;
            self.format.decode(&rest[..*value_bytes], value)?;
        }
        Ok((keys, values))
    }
}
