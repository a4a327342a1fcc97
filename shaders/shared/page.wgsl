// A layer's pages of keys and values.
//
// The buffer `cache` is one slab: whole pages of one layer, one after the other. It is an array of cells, and a cell
// holds a quad, four neighbouring numbers of a row, in each of the formats:
//
//   flag       cell        quad
//   CACHE_F32  vec4<f32>   itself
//   CACHE_F16  vec2<u32>   two halves a word, the first one low
//   CACHE_Q8   u32         four signed bytes, the first one lowest, times the scale of their block of 32
//
// A page holds for each head, in this order:
//
//   keys          [32, row]       a row is `size / 4` cells; in Q8 filled up with zeros to whole blocks of 8 cells
//   key scales    [32, scales]    only in Q8: two halves a cell, so a row of n blocks has (n + 1) / 2 of them
//   values        [32, row]       likewise
//   value scales  [32, scales]
//
// Each row has cells of its own, scales included: no cell is written by two workgroups. `PageShape::page_words` in
// `backend/gpu/attention.rs` counts the same words. CPU twin: `backend/cpu/memory.rs`.
//
// Constants: KV_HEADS, KEY_SIZE, VALUE_SIZE, CACHE (the binding). Flags: one of the formats; CACHE_WRITE; IN_KEYS: values
// are the beginning of the keys, and no others are kept.

const PAGE: u32 = 32; // positions
const NO_PAGE: u32 = 0xffffffff;

const KEY_SIZE: u32 = $KEY_SIZE;
const VALUE_SIZE: u32 = $VALUE_SIZE;
const KV_HEADS: u32 = $KV_HEADS;
const KEY_QUADS: u32 = KEY_SIZE / 4;
const VALUE_QUADS: u32 = VALUE_SIZE / 4;

#if CACHE_F32
alias Cell = vec4<f32>;
#end
#if CACHE_F16
alias Cell = vec2<u32>;
#end
#if CACHE_Q8
alias Cell = u32;
const KEY_ROW: u32 = (KEY_SIZE + 31) / 32 * 8;
const VALUE_ROW: u32 = (VALUE_SIZE + 31) / 32 * 8;
const KEY_SCALES: u32 = (KEY_ROW + 15) / 16;
const VALUE_SCALES: u32 = (VALUE_ROW + 15) / 16;
#else
const KEY_ROW: u32 = KEY_QUADS;
const VALUE_ROW: u32 = VALUE_QUADS;
const KEY_SCALES: u32 = 0;
const VALUE_SCALES: u32 = 0;
#end

const KEY_CELLS: u32 = PAGE * (KEY_ROW + KEY_SCALES);
#if IN_KEYS
const VALUE_CELLS: u32 = 0;
#else
const VALUE_CELLS: u32 = PAGE * (VALUE_ROW + VALUE_SCALES);
#end
const HEAD_CELLS: u32 = KEY_CELLS + VALUE_CELLS;

#if CACHE_WRITE
@group(0) @binding($CACHE) var<storage, read_write> cache: array<Cell>;
#else
@group(0) @binding($CACHE) var<storage, read> cache: array<Cell>;
#end

// Where a head's keys begin in a page, given the page's index in the slab.
fn keys_at(page: u32, head: u32) -> u32 {
    return (page * KV_HEADS + head) * HEAD_CELLS;
}

// Where a head's values begin.
fn values_at(page: u32, head: u32) -> u32 {
#if IN_KEYS
    return keys_at(page, head);
#else
    return keys_at(page, head) + KEY_CELLS;
#end
}

#if !CACHE_WRITE
// A quad; `at` is the quad's cell, `scale_at` the cell with the scales of its block and its neighbour.
fn decode(at: u32, scale_at: u32, quad: u32) -> vec4<f32> {
#if CACHE_F32
    return cache[at];
#end
#if CACHE_F16
    let words = cache[at];
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
#end
#if CACHE_Q8
    let scales = unpack2x16float(cache[scale_at]);
    return vec4<f32>(unpack4xI8(cache[at])) * select(scales.x, scales.y, (quad & 8u) != 0u);
#end
}

// A quad of the key of a position in the page; `keys` as from `keys_at`.
fn key_quad(keys: u32, position: u32, quad: u32) -> vec4<f32> {
    return decode(keys + position * KEY_ROW + quad, keys + PAGE * KEY_ROW + position * KEY_SCALES + quad / 16u, quad);
}

// A quad of a value; `values` as from `values_at`.
fn value_quad(values: u32, position: u32, quad: u32) -> vec4<f32> {
#if IN_KEYS
    return key_quad(values, position, quad);
#else
    let scale_at = values + PAGE * VALUE_ROW + position * VALUE_SCALES + quad / 16u;
    return decode(values + position * VALUE_ROW + quad, scale_at, quad);
#end
}
#end
