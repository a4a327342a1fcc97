// Sorts the choices of all rows by the matrices that they name, and cuts those of each matrix into tiles.
//
// Layout: the routes are a view, of which the first `choices` numbers of a row are matrices; a choice is counted over all
// rows, so choice `c` is number `c % choices` of row `c / choices`. The result is the choices, those of the first matrix
// first, and from `tiles_start` on the tiles, four words each: the matrix, the first place in the order, the place behind
// the last, and nothing. There may be as many tiles as `most_tiles` says; those that are not there are empty. Which of a
// matrix's choices comes first is left to chance, and makes no difference to any sum. Geometry: one workgroup of 256
// lanes, which count, then add up, then write. CPU twin: `chosen_rows` in `tests/experts.rs`.

#include "shared/rows.wgsl"

struct Params {
    outputs: u32,
    choices: u32,
    matrices: u32,     // at most MOST
    tile: u32,         // choices in a tile
    routes_start: u32,
    routes_stride: u32,
    tiles_start: u32,
}

const LANES = 256u;
const MOST = 512u;

@group(0) @binding(2) var<storage, read> routes: array<f32>;
@group(0) @binding(3) var<storage, read_write> order: array<u32>;

var<workgroup> places: array<atomic<u32>, MOST>; // of each matrix how many, then where the next one goes
var<workgroup> counts: array<u32, MOST>;

fn matrix_of(choice: u32) -> u32 {
    let at = params.routes_start + choice / params.choices * params.routes_stride + choice % params.choices;
    return min(u32(clamp(routes[at], 0.0, 65535.0)), params.matrices - 1u);
}

fn put_tile(number: u32, tile: vec3<u32>) {
    let at = params.tiles_start + number * 4u;
    order[at] = tile.x;
    order[at + 1u] = tile.y;
    order[at + 2u] = tile.z;
    order[at + 3u] = 0u;
}

@compute @workgroup_size(LANES)
fn main(@builtin(local_invocation_index) lane: u32) {
    let all = rows() * params.choices;
    #repeat j 2
    let matrix$j = lane + ${j}u * LANES;
    atomicStore(&places[matrix$j], 0u);
    #end
    workgroupBarrier();
    for (var choice = lane; choice < all; choice += LANES) {
        atomicAdd(&places[matrix_of(choice)], 1u);
    }
    workgroupBarrier();
    #repeat j 2
    let count$j = atomicLoad(&places[matrix$j]);
    counts[matrix$j] = count$j;
    #end
    workgroupBarrier();
    #repeat j 2
    var start$j = 0u;
    var tile$j = 0u;
    #end
    var tiles = 0u;
    for (var matrix = 0u; matrix < params.matrices; matrix++) {
        let count = counts[matrix];
        let own_tiles = (count + params.tile - 1u) / params.tile;
        tiles += own_tiles;
        #repeat j 2
        start$j += select(0u, count, matrix < matrix$j);
        tile$j += select(0u, own_tiles, matrix < matrix$j);
        #end
    }
    #repeat j 2
    atomicStore(&places[matrix$j], start$j);
    for (var at = 0u; at < count$j; at += params.tile) {
        let end = start$j + min(at + params.tile, count$j);
        put_tile(tile$j + at / params.tile, vec3<u32>(matrix$j, start$j + at, end));
    }
    #end
    let most_tiles = all / params.tile + min(params.matrices, all);
    for (var tile = tiles + lane; tile < most_tiles; tile += LANES) {
        put_tile(tile, vec3<u32>(0u));
    }
    workgroupBarrier();
    for (var choice = lane; choice < all; choice += LANES) {
        order[atomicAdd(&places[matrix_of(choice)], 1u)] = choice;
    }
}
