// What the ways to attend have in common: parameters, which pages and positions are seen, how scores are finished.
//
// Constants: GROUP (query heads of a head of keys and values), QUERIES (those taken at once), PIECES (how often that is
// needed for a group). Flag: SOFTCAP.

struct Params {
    table_start: u32,
    first_page: u32, // of the slab
    pages: u32,      // in the slab
    window: u32,     // positions that a token sees; 0: all
    chunk: u32,      // positions of the chunks of which a token sees its own; 0: there are none
    query_start: u32,
    query_stride: u32,
    scale: f32,
    softcap: f32,
    splits: u32,      // only where there are partial sums
    first_split: u32, // of this slab, likewise
    out_start: u32,   // only where the result is written
    out_stride: u32,
    sinks_start: u32, // likewise
}

const GROUP: u32 = $GROUP;
const QUERIES: u32 = $QUERIES;
const PIECES: u32 = $PIECES;
const HEADS: u32 = GROUP * KV_HEADS;
const MASKED: f32 = -3e38; // the score of what is not seen
const LEAST: f32 = -1e38;  // scores that count are higher

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> table: array<u32>;
@group(0) @binding(4) var<storage, read> queries: array<vec4<f32>>;

// The first position that is seen from a position.
fn first_seen(position: u32) -> u32 {
    let is_cut = params.window != 0u && position >= params.window;
    let in_window = select(0u, position + 1u - params.window, is_cut);
    let in_chunk = select(0u, position - position % max(params.chunk, 1u), params.chunk != 0u);
    return max(in_window, in_chunk);
}

// The index in the slab of a page of the sequence, if it is there.
fn page_at(number: u32) -> u32 {
    let page = table[params.table_start + number];
    let is_here = page != NO_PAGE && page >= params.first_page && page - params.first_page < params.pages;
    return select(NO_PAGE, page - params.first_page, is_here);
}

// Where the query of a token and head is, in quads.
fn query_at(token: u32, head: u32) -> u32 {
    return (params.query_start + token * params.query_stride) / 4u + head * KEY_QUADS;
}

// The score of a product of query and key.
fn score_of(product: f32) -> f32 {
#if SOFTCAP
    return params.softcap * tanh(product * params.scale / params.softcap);
#else
    return product * params.scale;
#end
}

// The weights of scores, given the highest.
fn weights_of(scores: vec4<f32>, highest: f32) -> vec4<f32> {
    return select(vec4<f32>(), exp(scores - highest), scores > vec4<f32>(LEAST));
}
