// Sums over a team: $LANES neighbouring lanes, a power of two with the exponent $STEPS, of a workgroup of 256.

const LANES: u32 = $LANES;

var<workgroup> parts: array<f32, 256>;

// The sum of each lane's value over its team, for all of the team. To be called by the whole workgroup.
fn team_sum(value: f32, thread: u32) -> f32 {
    let lane = thread % LANES;
    parts[thread] = value;
    #repeat i $STEPS
    workgroupBarrier();
    if (lane < (LANES >> ($i + 1u))) {
        parts[thread] += parts[thread + (LANES >> ($i + 1u))];
    }
    #end
    workgroupBarrier();
    let sum = parts[thread - lane];
    // What was read may be overwritten by the next call.
    workgroupBarrier();
    return sum;
}

#if SUBGROUPS
// The same where the whole workgroup is one team: subgroups, whatever their size, add up first.
fn whole_sum(value: f32, thread: u32, subgroup_size: u32) -> f32 {
    let part = subgroupAdd(value);
    if (thread % subgroup_size == 0u) {
        parts[thread / subgroup_size] = part;
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i * subgroup_size < 256u; i++) {
        sum += parts[i];
    }
    // What was read may be overwritten by the next call.
    workgroupBarrier();
    return sum;
}
#end
