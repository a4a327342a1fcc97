//! Every kernel of the GPU against its twin on the CPU.

mod gpu;

use gpu::{Data, Random, bytes_of, bytes_of_words, floats, gpus, run};
use kiln::backend::gpu::shader::Variant;

#[test]
fn add() {
    let mut random = Random(1);
    for gpu in gpus() {
        for (tokens, width) in [(1, 1), (3, 65), (2, 200)] {
            let (from, to) = (random.normals(tokens * width), random.normals(tokens * width));
            let step = bytes_of_words(&[tokens as u32, 0, 0, 0]);
            let w = width as u32;
            let params = bytes_of_words(&[w, 0, w, 0, w]);
            let variant = Variant::new("add.wgsl", "uurw").for_gpu(&gpu);
            let (from_bytes, to_bytes) = (bytes_of(&from), bytes_of(&to));
            let data = [Data::Read(&step), Data::Read(&params), Data::Read(&from_bytes), Data::Change(&to_bytes)];
            let found = run(&gpu, &variant, &data, [w.div_ceil(64), tokens as u32, 1]);
            let expected: Vec<f32> = from.iter().zip(&to).map(|(a, b)| a + b).collect();
            assert_eq!(floats(&found[0]), expected, "{gpu:?}");
        }
    }
}
