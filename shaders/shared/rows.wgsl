// Rows of numbers, and the grid of workgroups that goes over them: `x` along a row, `y` and then `z` over the rows. No
// side of a grid may have more than 65,535 workgroups: what lies farther along a row is left to loops.
//
// The parameters of every kernel that includes this begin with `outputs`: 0 if there is a row for each token of the
// batch, 1 if there is one for each token whose logits are asked for.

#include "shared/step.wgsl"

@group(0) @binding(0) var<uniform> step: Step;
@group(0) @binding(1) var<uniform> params: Params;

const MOST_GROUPS = 65535u;

// How many rows there are.
fn rows() -> u32 {
    return select(step.tokens, step.outputs, params.outputs == 1u);
}

// The row of a workgroup. It may lie behind the last: plans are recorded for the most rows that a step can have.
fn row_of(workgroup: vec3<u32>) -> u32 {
    return workgroup.y + workgroup.z * MOST_GROUPS;
}
