//! scratch
mod gpu;
use gpu::gpus;
#[test]
fn times() {
    for _ in 0..2 {
        let t = std::time::Instant::now();
        let g = gpus();
        println!("{:.1} ms", t.elapsed().as_secs_f64() * 1e3);
        for gpu in g {
            println!("{}", gpu.report());
        }
    }
}
