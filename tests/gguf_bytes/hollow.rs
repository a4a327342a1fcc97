//! Models of any size of which only the headers are written: their weights are zeros, in files that take no room on a disk.

use super::{Folder, Raw, kind};
use kiln::gguf::TensorType;
use std::fs::OpenOptions;
use std::path::PathBuf;

/// A llama.
pub struct Hollow {
    pub layers: u64,
    pub width: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub inner: u64,
    pub vocabulary: u64,
    pub context: u64,
    /// Of all matrices.
    pub format: TensorType,
}

impl Hollow {
    fn tensors(&self, shard: u64, shards: u64) -> Vec<(String, Vec<u64>)> {
        let (width, keys, inner) = (self.width, self.width / self.heads * self.kv_heads, self.inner);
        let of_layer = |layer: u64| {
            [
                ("attn_norm", vec![width]),
                ("attn_q", vec![width, width]),
                ("attn_k", vec![width, keys]),
                ("attn_v", vec![width, keys]),
                ("attn_output", vec![width, width]),
                ("ffn_norm", vec![width]),
                ("ffn_gate", vec![width, inner]),
                ("ffn_up", vec![width, inner]),
                ("ffn_down", vec![inner, width]),
            ]
            .map(|(name, shape)| (format!("blk.{layer}.{name}.weight"), shape))
        };
        let mut tensors: Vec<_> = (0..self.layers).filter(|layer| layer % shards == shard).flat_map(of_layer).collect();
        if shard == 0 {
            tensors.push(("token_embd.weight".into(), vec![width, self.vocabulary]));
            tensors.push(("output.weight".into(), vec![width, self.vocabulary]));
            tensors.push(("output_norm.weight".into(), vec![width]));
        }
        tensors
    }

    /// Writes the model in so many files. Returns the first, and the bytes of all tensors.
    pub fn write(&self, folder: &Folder, shards: u64) -> (PathBuf, u64) {
        let facts = [
            ("vocab_size", self.vocabulary),
            ("context_length", self.context),
            ("embedding_length", self.width),
            ("block_count", self.layers),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("feed_forward_length", self.inner),
        ];
        let mut paths = vec![];
        let mut all_bytes = 0;
        for shard in 0..shards {
            let tensors = self.tensors(shard, shards);
            let keys = if shard == 0 { 6 + facts.len() as u64 } else { 2 };
            let mut raw = Raw::v3(tensors.len() as u64, keys)
                .key_u16("split.no", shard as u16)
                .key_u16("split.count", shards as u16);
            if shard == 0 {
                raw = raw.key("split.tensors.count", kind::I32).u32(self.layers as u32 * 9 + 3);
                raw = raw.key_string("general.architecture", "llama").key_string("tokenizer.ggml.model", "none");
                raw = raw.key("llama.attention.layer_norm_rms_epsilon", kind::F32).u32(1e-5_f32.to_bits());
                for (name, value) in facts {
                    raw = raw.key(&format!("llama.{name}"), kind::U32).u32(value as u32);
                }
            }
            let mut offset = 0;
            for (name, shape) in &tensors {
                let format = if shape.len() == 1 { TensorType::F32 } else { self.format };
                raw = raw.tensor(name, shape, format.id(), offset);
                let bytes = shape.iter().product::<u64>() / format.block_elements() * format.block_bytes();
                offset += bytes.next_multiple_of(32);
            }
            let raw = raw.pad(32);
            let path = folder.write(&format!("hollow-{:05}-of-{shards:05}.gguf", shard + 1), &raw.bytes);
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(raw.bytes.len() as u64 + offset).unwrap();
            all_bytes += offset;
            paths.push(path);
        }
        (paths.swap_remove(0), all_bytes)
    }
}
