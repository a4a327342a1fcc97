// ln(1 + e^x), also where a sum would round e^x away.

fn softplus(x: f32) -> f32 {
    let t = exp(-abs(x));
    return max(x, 0.0) + select(log(1.0 + t), t * (1.0 - t * (0.5 - t / 3.0)), t < 0.01);
}
