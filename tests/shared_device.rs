//! A device that an application has opened, and goes on using: kiln computes there what it computes on its own, and the
//! application never waits for it within a poll. And the example that shows this.

#![cfg(feature = "gpu")]

mod example;

use example::{error, example, model};
use kiln::backend::gpu::readback::{Reading, wait};
use kiln::backend::gpu::{Gpu, GpuOptions, wgpu};
use kiln::gguf::Gguf;
use kiln::{Error, Generate, LoadOptions, Model};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The device of the application; none, with a visible word, where there is no driver.
fn application() -> Option<Gpu> {
    let name = std::env::var("KILN_TEST_GPU").unwrap_or("llvmpipe".into());
    let name = name.split(',').next().unwrap_or_default().to_lowercase();
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    let adapter = adapters.into_iter().find(|adapter| adapter.get_info().name.to_lowercase().contains(&name));
    let Some(adapter) = adapter else {
        println!("skipped: no GPU is named like `{name}`");
        return None;
    };
    let wanted = Gpu::requirements(&adapter);
    let descriptor = wgpu::DeviceDescriptor {
        required_features: wanted.features,
        required_limits: wanted.limits,
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    Some(pollster::block_on(Gpu::from_wgpu(&adapter, device, queue)).unwrap())
}

/// The same device, opened by kiln.
fn own(application: &Gpu) -> Gpu {
    let mut options = GpuOptions::default();
    options.name = Some(application.info().name.clone());
    pollster::block_on(Gpu::open(&options)).unwrap()
}

fn load(gpu: &Gpu, budget_ms: u32) -> Model {
    let options = LoadOptions::new().submit_budget_ms(budget_ms);
    Model::load_on(Gguf::open(model("llama.gguf")).unwrap(), &options, std::slice::from_ref(gpu)).unwrap()
}

fn how(tokens: usize) -> Generate {
    Generate::new().max_tokens(tokens).seed(7).ignore_end(true)
}

#[test]
fn the_text_is_that_of_a_device_of_its_own() {
    let Some(application) = application() else { return };
    let text = |gpu: &Gpu, budget_ms| {
        let model = load(gpu, budget_ms);
        assert_eq!(model.gpus().first().map(|gpu| gpu.tiers()), Some(gpu.tiers()));
        model.session().generate_with("The quick brown fox", how(40)).unwrap().text().unwrap()
    };
    let expected = text(&own(&application), 50);
    for budget_ms in [0, 4, 50] {
        assert_eq!(text(&application, budget_ms), expected, "{budget_ms}");
    }
}

/// Work of an application that keeps a device busy.
struct Work {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
}

impl Work {
    fn new(device: &wgpu::Device) -> Work {
        let source = "
            @group(0) @binding(0) var<storage, read_write> sums: array<u32>;
            @compute @workgroup_size(8)
            fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
                var x = group.x + lane;
                for (var i = 0u; i < 20000u; i++) { x = x * 1664525u + (x >> 7u) + i; }
                sums[lane] = x;
            }";
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        let sums = device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 32,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: sums.as_entire_binding() }],
        });
        Work { pipeline, bindings }
    }

    /// Submits so much of it. Tells when it is done, to those who poll.
    fn submit(&self, gpu: &Gpu, groups: u32) -> Arc<AtomicBool> {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bindings, &[]);
        pass.dispatch_workgroups(groups, 1, 1);
        drop(pass);
        gpu.queue().submit([encoder.finish()]);
        let done = Arc::new(AtomicBool::new(false));
        let tells = done.clone();
        gpu.queue().on_submitted_work_done(move || tells.store(true, Ordering::SeqCst));
        done
    }

    /// How much of it takes about so long.
    fn groups(&self, gpu: &Gpu, seconds: f64) -> u32 {
        self.submit(gpu, 1);
        finish(gpu);
        let mut groups = 16;
        loop {
            let start = Instant::now();
            self.submit(gpu, groups);
            finish(gpu);
            let taken = start.elapsed().as_secs_f64();
            if taken > 0.05 || groups > 10_000 {
                return (f64::from(groups) * seconds / taken).clamp(1.0, 65_535.0) as u32;
            }
            groups *= 2;
        }
    }
}

fn finish(gpu: &Gpu) {
    gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
}

fn readable(gpu: &Gpu) -> wgpu::Buffer {
    gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

#[test]
fn work_of_an_application_is_not_waited_for() {
    let Some(application) = application() else { return };
    for (gpu, is_own) in [(own(&application), true), (application, false)] {
        let work = Work::new(gpu.device());
        let groups = work.groups(&gpu, 1.0);

        // kiln's work is done when the application's begins, and kiln has yet to hear of it.
        let buffer = readable(&gpu);
        gpu.queue().write_buffer(&buffer, 0, &[1, 2, 3, 4]);
        gpu.queue().submit([]);
        let done = work.submit(&gpu, groups);
        let reading = Reading::start(&buffer, 4);
        assert_eq!(wait(&gpu, reading.finish(&gpu)).unwrap(), [1, 2, 3, 4]);
        // On a device of its own kiln waits for all, which shows that the work takes long enough to tell.
        assert_eq!(done.load(Ordering::SeqCst), is_own, "{gpu:?}");
        finish(&gpu);

        // Something fails, and kiln looks whether the device is lost.
        let buffer = readable(&gpu);
        let reading = Reading::start(&buffer, 4);
        buffer.destroy();
        let done = work.submit(&gpu, groups);
        assert!(matches!(wait(&gpu, reading.finish(&gpu)), Err(Error::Gpu { .. } | Error::GpuLost { .. })));
        assert_eq!(done.load(Ordering::SeqCst), is_own, "{gpu:?}");
        finish(&gpu);
    }
}

#[test]
fn text_comes_while_the_application_keeps_the_queue_full() {
    let Some(gpu) = application() else { return };
    let model = load(&gpu, 4);
    let expected = model.session().generate_with("The quick", how(6)).unwrap().text().unwrap();
    let work = Work::new(gpu.device());
    let groups = work.groups(&gpu, 0.01);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut before = work.submit(&gpu, groups);
            while !stop.load(Ordering::SeqCst) {
                let next = work.submit(&gpu, groups);
                while !before.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_micros(100));
                    gpu.device().poll(wgpu::PollType::Poll).unwrap();
                }
                before = next;
            }
        });
        let text = model.session().generate_with("The quick", how(6)).and_then(|reply| reply.text());
        stop.store(true, Ordering::SeqCst);
        assert_eq!(text.unwrap(), expected);
    });
}

#[test]
fn a_device_that_the_application_destroys_is_lost_and_not_waited_for() {
    let Some(gpu) = application() else { return };
    let model = load(&gpu, 4);
    let mut session = model.session();
    let mut reply = session.generate_with("The quick", Generate::new().ignore_end(true)).unwrap();
    assert!(reply.next().is_some_and(|piece| piece.is_ok()));
    gpu.device().destroy();
    let end = reply.find(Result::is_err);
    assert!(matches!(end, Some(Err(Error::GpuLost { .. }))), "{end:?}");
}

/// The size and the pixels of a picture as the example writes it; every length and checksum of it is right.
fn decoded(png: &[u8]) -> ((u32, u32), Vec<[u8; 4]>) {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    let mut rest = png.strip_prefix(b"\x89PNG\r\n\x1a\n").unwrap();
    let (mut header, mut stream, mut ended) = (vec![], vec![], false);
    while !rest.is_empty() {
        assert!(!ended);
        let (length, after) = rest.split_at(4);
        let (chunk, after) = after.split_at(4 + number(length) as usize);
        let (sum, after) = after.split_at(4);
        assert_eq!(crc(chunk), number(sum));
        match &chunk[..4] {
            b"IHDR" => header.extend(&chunk[4..]),
            b"IDAT" => stream.extend(&chunk[4..]),
            kind => assert_eq!((kind, chunk.len()), (&b"IEND"[..], 4)),
        }
        ended = chunk.starts_with(b"IEND");
        rest = after;
    }
    assert!(ended && header[8..] == [8, 6, 0, 0, 0]);
    let (width, height) = (number(&header[..4]), number(&header[4..8]));
    let bytes = inflated(&stream);
    assert_eq!(bytes.len() as u32, height * (1 + 4 * width));
    let rows = bytes.chunks(1 + 4 * width as usize);
    let pixels = rows.flat_map(|row| {
        assert_eq!(row[0], 0);
        row[1..].as_chunks::<4>().0
    });
    ((width, height), pixels.copied().collect())
}

/// The remainder of a long division of the bits of a message by the polynomial of PNG.
fn crc(message: &[u8]) -> u32 {
    let first = |index| index < 32; // the first 32 bits are inverted, and so is the remainder
    let bits = message.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    let bits = bits.chain([false; 32]).enumerate().map(|(index, bit)| bit != first(index));
    let remainder = bits.fold(0_u32, |rest, bit| {
        let next = rest << 1 | u32::from(bit);
        if rest >> 31 == 1 { next ^ 0x04c1_1db7 } else { next }
    });
    !remainder.reverse_bits()
}

/// The bytes of a zlib stream of stored blocks.
fn inflated(stream: &[u8]) -> Vec<u8> {
    assert!(stream[0] == 0x78 && u16::from_be_bytes([stream[0], stream[1]]).is_multiple_of(31));
    let (mut rest, mut bytes, mut ended) = (&stream[2..], vec![], false);
    while !ended {
        let [low, high] = [[rest[1], rest[2]], [rest[3], rest[4]]].map(u16::from_le_bytes);
        assert!(rest[0] <= 1 && low == !high);
        ended = rest[0] == 1;
        bytes.extend(&rest[5..5 + usize::from(low)]);
        rest = &rest[5 + usize::from(low)..];
    }
    let a = bytes.iter().fold(1_u64, |sum, &byte| sum + u64::from(byte));
    let counted = bytes.iter().rev().zip(1_u64..);
    let b = bytes.len() as u64 + counted.map(|(&byte, count)| count * u64::from(byte)).sum::<u64>();
    assert_eq!(rest, (((b % 65_521) << 16) | (a % 65_521)).to_be_bytes()[4..].to_vec());
    bytes
}

#[test]
fn the_example_draws_while_it_generates() {
    let Some(gpu) = application() else { return };
    let device = format!("gpu:{}", gpu.info().name);
    let out = std::env::temp_dir().join(format!("kiln-shared-device-{}.png", std::process::id()));
    let llama = model("llama.gguf");
    let arguments =
        ["--model", &llama, "--device", &device, "--frames", "30", "--fps", "100", "--out", out.to_str().unwrap()];
    let Some(mut command) = example("shared_device", &arguments) else { return };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    for word in ["Once upon a time", "without kiln", "with kiln", "99 %", "% of the frames", "tokens/s"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let (size, pixels) = decoded(&std::fs::read(&out).unwrap());
    std::fs::remove_file(&out).unwrap();
    assert_eq!(size, (320, 240));
    assert_eq!(pixels.first(), Some(&[0, 0, 0, 255]));
    assert_ne!(pixels[120 * 320 + 160], [0, 0, 0, 255]);
    let drawn = pixels.iter().filter(|pixel| **pixel != [0, 0, 0, 255]).count();
    assert!((10_000..30_000).contains(&drawn), "{drawn}");

    let refusals = [
        (&["--device", "cpu"][..], 1, "expected gpu"),
        (&["--device", "gpu:no-such-adapter"], 1, "no-such-adapter"),
        (&["--budget", "0"], 2, "--budget"),
        (&["--frames", "some"], 2, "--frames"),
        (&["--frobnicate"], 2, "Usage: shared_device"),
    ];
    for (more, code, named) in refusals {
        let Some(command) = example("shared_device", &[&["--model", &llama], more].concat()) else { return };
        let said = error(command, code);
        assert!(said.contains(named), "{more:?}: {said}");
    }
}
