// Gated units: a curve of one number, times another.
//
// Flags: GELU, CLAMPED, SIGMOID, SQUARED_RELU, TANH, IDENTITY, or else the curve is SiLU. CPU twins: `activate` and `gate` in
// `backend/cpu/ops.rs`.

// The exponent is held where the power is finite.
fn sigmoid(x: f32) -> f32 {
    return 1.0 / (1.0 + exp(min(-x, 80.0)));
}

fn curve(x: f32) -> f32 {
#if CLAMPED
    let low = min(x, 7.0);
    return low * sigmoid(1.702 * low);
#else
#if SIGMOID
    return sigmoid(x);
#else
#if SQUARED_RELU
    return max(x, 0.0) * max(x, 0.0);
#else
#if TANH
    return tanh(clamp(x, -20.0, 20.0));
#else
#if IDENTITY
    return x;
#else
#if GELU
    // 1 + tanh(y) is twice the sigmoid of 2 y.
    return x * sigmoid(1.5957691216 * x * (1.0 + 0.044715 * x * x));
#else
    return x * sigmoid(x);
#end
#end
#end
#end
#end
#end
}

fn gated_unit(gate: f32, up: f32) -> f32 {
#if CLAMPED
    return curve(gate) * (clamp(up, -7.0, 7.0) + 1.0);
#else
    return curve(gate) * up;
#end
}
