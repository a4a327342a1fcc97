//! Latent attention: keys and values of all heads are made from one short row a token, and it is this row that is kept.
//!
//! A head's query and key have a part that knows positions and one that does not. The former is rotated, and its key is
//! one for all heads. The latter's key would be a matrix times the latent row; instead the query goes through the
//! transposed matrix, so that it fits the row itself. Likewise sums are taken of rows, and go through the matrix of
//! values behind. So there is one head of keys and values, whose values are the beginning of its keys. Older files have
//! both matrices in one tensor, not transposed: then keys and values are made for each head, and kept like any others.

use super::{Stream, Writer};
use crate::Result;
use crate::error::Error;
use crate::model::hyper::Hyper;
use crate::program::{KeyValues, KeyValuesId, Op, Product, Reach, RopeId, Rows, Runs, SlotId};

/// Sizes of latent attention.
pub(in crate::model) struct Latent {
    /// Numbers in the row that is kept, beside the rotated part of the keys.
    pub rank: usize,
    /// Numbers in the row that queries are made from, where there is one.
    pub query_rank: Option<usize>,
    /// Numbers in a head's key, both parts.
    pub key_size: usize,
    /// Numbers in a head's value.
    pub value_size: usize,
}

impl Latent {
    pub fn read(hyper: &Hyper) -> Result<Self> {
        let wrong =
            |name: &str, found: String, expected: String| Err(Error::metadata(hyper.key(name), found, expected));
        let size = |name: &str, default: usize| -> Result<usize> {
            Ok(hyper.optional(name)?.filter(|&size| size > 0).unwrap_or(default))
        };
        let rank = size("attention.kv_lora_rank", 0)?;
        if rank == 0 {
            return wrong("attention.kv_lora_rank", "nothing".into(), "a positive number".into());
        }
        let key_size = size("attention.key_length_mla", hyper.key_size)?;
        let value_size = size("attention.value_length_mla", hyper.value_size)?;
        let rotated = hyper.rope_dimensions;
        if rotated == 0 || rotated >= key_size {
            let expected = format!("1 to {}, less than a key", key_size.saturating_sub(1));
            return wrong("rope.dimension_count", rotated.to_string(), expected);
        }
        let query_rank = hyper.optional("attention.q_lora_rank")?.filter(|&rank| rank > 0);
        Ok(Latent { rank, query_rank, key_size, value_size })
    }
}

/// Runs of neighbouring numbers: a part of each head that goes to a part of each head.
fn part(
    from: SlotId,
    (from_start, from_stride): (usize, usize),
    to: (usize, usize),
    size: usize,
    count: usize,
) -> Runs {
    Runs { from, from_start, from_stride, to_start: to.0, to_stride: to.1, size, count }
}

impl Writer<'_, '_> {
    /// Attention of one layer; returns the sums of all heads' values.
    pub(super) fn latent_attention(&mut self, layer: usize, latent: &Latent, stream: Stream) -> Result<SlotId> {
        let (hyper, heads) = (self.hyper, self.hyper.heads[layer]);
        let &Latent { rank, key_size, .. } = latent;
        let rotated = hyper.rope_dimensions;
        let free = key_size - rotated;
        let input = self.pre_norm(layer, "attn_norm", stream)?;
        let queries = self.slot("q", heads * key_size, Rows::Tokens);
        let (row, rotated_key) = (self.slot("c", rank, Rows::Tokens), self.slot("kr", rotated, Rows::Tokens));
        let rows = self.stacked(layer, "attn_kv_a_mqa", hyper.width, &[row, rotated_key])?;
        match latent.query_rank {
            None => {
                let product = self.product(layer, "attn_q", hyper.width, queries)?;
                self.push(Op::Linear { input, products: [vec![product], rows].concat() });
            }
            Some(query_rank) => {
                let short = self.slot("qa", query_rank, Rows::Tokens);
                let product = self.product(layer, "attn_q_a", hyper.width, short)?;
                self.push(Op::Linear { input, products: [vec![product], rows].concat() });
                self.latent_norm(layer, "attn_q_a_norm", short)?;
                let product = self.product(layer, "attn_q_b", query_rank, queries)?;
                self.push(Op::Linear { input: short, products: vec![product] });
            }
        }
        self.latent_norm(layer, "attn_kv_a_norm", row)?;
        let rotated_queries = self.slot("qr", heads * rotated, Rows::Tokens);
        let parts = vec![part(queries, (free, key_size), (0, rotated), rotated, heads)];
        self.push(Op::Copy { parts, out: rotated_queries });
        for slot in [rotated_queries, rotated_key] {
            self.push(Op::Rotate { slot, head_size: rotated, rope: RopeId(0) });
        }
        let has = |part: &str| self.tensors.has(&format!("blk.{layer}.{part}.weight"));
        match has("attn_kv_b") && !has("attn_k_b") {
            false => self.attend_rows(layer, latent, queries, rotated_queries, [row, rotated_key]),
            true => self.attend_heads(layer, latent, queries, rotated_queries, [row, rotated_key]),
        }
    }

    /// Attention over the rows that keys and values would be made from.
    fn attend_rows(
        &mut self,
        layer: usize,
        latent: &Latent,
        queries: SlotId,
        rotated_queries: SlotId,
        [row, rotated_key]: [SlotId; 2],
    ) -> Result<SlotId> {
        let (heads, rotated) = (self.hyper.heads[layer], self.hyper.rope_dimensions);
        let &Latent { rank, key_size, value_size, .. } = latent;
        let (free, width) = (key_size - rotated, rank + rotated);
        let free_queries = self.slot("qf", heads * free, Rows::Tokens);
        let parts = vec![part(queries, (0, key_size), (0, free), free, heads)];
        self.push(Op::Copy { parts, out: free_queries });
        let turned = self.slot("qc", heads * rank, Rows::Tokens);
        self.push_of_heads(layer, "attn_k_b", free_queries, (free, rank, heads), turned)?;
        let wide_queries = self.slot("qq", heads * width, Rows::Tokens);
        let parts = vec![
            part(turned, (0, rank), (0, width), rank, heads),
            part(rotated_queries, (0, rotated), (rank, width), rotated, heads),
        ];
        self.push(Op::Copy { parts, out: wide_queries });
        let keys = self.slot("k", width, Rows::Tokens);
        let parts = vec![
            part(row, (0, rank), (0, rank), rank, 1),
            part(rotated_key, (0, rotated), (rank, rotated), rotated, 1),
        ];
        self.push(Op::Copy { parts, out: keys });
        let shape =
            KeyValues { layer, heads: 1, key_size: width, value_size: rank, values_in_keys: true, reach: Reach::All };
        let sums = self.slot("ac", heads * rank, Rows::Tokens);
        self.attend_over(shape, wide_queries, (keys, None), heads, sums);
        let values = self.slot("a", heads * value_size, Rows::Tokens);
        self.push_of_heads(layer, "attn_v_b", sums, (rank, value_size, heads), values)?;
        Ok(values)
    }

    /// Attention over keys and values of each head.
    fn attend_heads(
        &mut self,
        layer: usize,
        latent: &Latent,
        queries: SlotId,
        rotated_queries: SlotId,
        [row, rotated_key]: [SlotId; 2],
    ) -> Result<SlotId> {
        let (heads, rotated) = (self.hyper.heads[layer], self.hyper.rope_dimensions);
        let &Latent { rank, key_size, value_size, .. } = latent;
        let (free, both) = (key_size - rotated, key_size - rotated + value_size);
        let made = self.slot("kv", heads * both, Rows::Tokens);
        let product = self.product(layer, "attn_kv_b", rank, made)?;
        self.push(Op::Linear { input: row, products: vec![product] });
        let turned = self.slot("qq", heads * key_size, Rows::Tokens);
        let parts = vec![
            part(queries, (0, key_size), (0, key_size), free, heads),
            part(rotated_queries, (0, rotated), (free, key_size), rotated, heads),
        ];
        self.push(Op::Copy { parts, out: turned });
        let keys = self.slot("k", heads * key_size, Rows::Tokens);
        let parts = vec![
            part(made, (0, both), (0, key_size), free, heads),
            part(rotated_key, (0, 0), (free, key_size), rotated, heads),
        ];
        self.push(Op::Copy { parts, out: keys });
        let values = self.slot("v", heads * value_size, Rows::Tokens);
        let parts = vec![part(made, (free, both), (0, value_size), value_size, heads)];
        self.push(Op::Copy { parts, out: values });
        let shape = KeyValues { layer, heads, key_size, value_size, values_in_keys: false, reach: Reach::All };
        let sums = self.slot("a", heads * value_size, Rows::Tokens);
        self.attend_over(shape, turned, (keys, Some(values)), heads, sums);
        Ok(sums)
    }

    fn attend_over(
        &mut self,
        shape: KeyValues,
        queries: SlotId,
        (keys, values): (SlotId, Option<SlotId>),
        heads: usize,
        out: SlotId,
    ) {
        let over = KeyValuesId(self.program.key_values.len());
        self.program.key_values.push(shape);
        self.push(Op::Store { keys, values, to: over });
        self.temper(shape.layer, queries);
        let (scale, softcap) = (self.flags.attention_scale, self.flags.attention_softcap);
        self.push(Op::Attend { queries, over, heads, scale, softcap, sinks: None, out });
    }

    /// Multiplies what each head has by a matrix of its own.
    fn push_of_heads(
        &mut self,
        layer: usize,
        name: &str,
        input: SlotId,
        (columns, rows, heads): (usize, usize, usize),
        out: SlotId,
    ) -> Result<()> {
        let weight = self.tensors.matrix(&format!("blk.{layer}.{name}.weight"), columns, rows * heads)?;
        let products = vec![Product { weight, first_row: 0, bias: None, out }];
        self.push(Op::Experts { input, routes: None, experts: heads, products });
        Ok(())
    }

    fn latent_norm(&mut self, layer: usize, name: &str, slot: SlotId) -> Result<()> {
        self.norm(&format!("blk.{layer}.{name}"), slot, slot, self.width(slot))
    }
}
