//! What a GPU can do to those who use it: run out of memory, be lost, have limits that are too small. Each must end in an
//! error that says so, and never in a panic, a hang, or logits that are none. And what must not happen there: objects
//! that are made for every token.

#![cfg(feature = "gpu")]

mod gpu;
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use gpu::{nmse, open};
use kiln::backend::batch::Batch;
use kiln::backend::cpu::executor::{Executor, ExecutorOptions};
use kiln::backend::cpu::memory::PageMemory;
use kiln::backend::gpu::layout::Layout;
use kiln::backend::gpu::memory::Matrix;
use kiln::backend::gpu::readback::wait;
use kiln::backend::gpu::{Fault, Gpu, GpuExecutor, GpuExecutorOptions, GpuOptions, wgpu};
use kiln::cache::{Cache, CacheFormat, CacheLimits, Sequence};
use kiln::gguf::{Gguf, TensorType};
use kiln::model::{self, ProgramOptions};
use kiln::program::Program;
use kiln::{Error, Generate, LoadOptions, Model, Result, Session};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;
use tiny::{Sizes, Tiny, random};

/// What a GPU and the CPU, or two ways through one GPU, may differ by in `f32`.
const NMSE: f64 = 1e-10;

/// A model and its cache.
struct World {
    file: Arc<Gguf>,
    program: Program,
    cache: Cache,
}

impl World {
    fn new(tiny: &Tiny, context: u32) -> World {
        let file = tiny.file();
        let program = model::program(&file, ProgramOptions { context: context as usize }).unwrap();
        let limits = CacheLimits { sequences: 2, chunk_tokens: 64, ..CacheLimits::new(context) };
        World { cache: Cache::of_program(&program, limits).unwrap(), file, program }
    }

    fn load(&self, gpu: &Gpu, chunk_tokens: u32) -> Result<GpuExecutor> {
        let (program, format) = (self.program.clone(), CacheFormat::F32);
        let mut options = GpuExecutorOptions::default();
        options.chunk_tokens = chunk_tokens;
        wait(gpu, GpuExecutor::new(gpu, self.file.clone(), program, &self.cache, format, options))
    }

    /// The logits of all tokens, run in batches of these lengths.
    fn logits(&self, executor: &mut GpuExecutor, tokens: &[u32], lengths: &[usize]) -> Result<Vec<f32>> {
        let gpu = executor.gpu().clone();
        let mut sequence = self.cache.sequence();
        batches(tokens, lengths, |batch| wait(&gpu, executor.run(batch, &mut sequence)))
    }

    /// The same on the CPU.
    fn cpu(&self, tokens: &[u32], lengths: &[usize]) -> Vec<f32> {
        let executor = Executor::new(self.file.clone(), self.program.clone(), ExecutorOptions::default()).unwrap();
        let mut memory = PageMemory::new(&self.cache, CacheFormat::F32).unwrap();
        let mut sequence = self.cache.sequence();
        batches(tokens, lengths, |batch| executor.run(batch, &mut sequence, &mut memory)).unwrap()
    }
}

/// Runs tokens in batches of these lengths, over and over.
fn batches(tokens: &[u32], lengths: &[usize], mut run: impl FnMut(Batch) -> Result<Vec<f32>>) -> Result<Vec<f32>> {
    let (mut rest, mut logits) = (tokens, vec![]);
    for length in lengths.iter().cycle() {
        let (tokens, later) = rest.split_at(rest.len().min(*length));
        let outputs: Vec<usize> = (0..tokens.len()).collect();
        logits.extend(run(Batch { tokens, outputs: &outputs, texts: &[] })?);
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    Ok(logits)
}

fn tokens(count: usize, vocabulary: usize) -> Vec<u32> {
    random("tokens", count).map(|value| ((value + 1.0) / 2.0 * vocabulary as f32) as u32).collect()
}

/// A model with little of everything.
fn thin() -> Tiny {
    Tiny::with_sizes("llama", Sizes::thin(1))
}

/// What `work` returns, if it does so in time.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(60)).expect("it hangs, or panicked")
}

#[test]
fn steps_make_no_objects() {
    for gpu in open(&GpuOptions::default()) {
        let world = World::new(&thin(), 1024);
        let mut executor = world.load(&gpu, 32).unwrap();
        let mut sequence = world.cache.sequence();
        let mut run = |tokens: &[u32], outputs: &[usize]| {
            wait(&gpu, executor.run(Batch { tokens, outputs, texts: &[] }, &mut sequence)).unwrap()
        };
        run(&[1], &[0]);
        let made = gpu.objects_made();
        assert!(made > 0);
        for step in 0..100 {
            run(&[step], &[0]);
        }
        for (length, token) in [40, 1, 7, 1, 33, 1, 1, 8, 64, 9, 2].into_iter().zip(0..) {
            run(&vec![token; length], &[length - 1]);
            run(&vec![token; length / 2 + 1], &[]);
        }
        assert_eq!(gpu.objects_made(), made, "on {gpu:?}");
        // The more outputs the more has to be read at once; that is made room for once, too.
        run(&[2; 20], &Vec::from_iter(0..20));
        let made_for_more = gpu.objects_made();
        assert_eq!(made_for_more, made + 1);
        for count in (1..20).rev() {
            run(&vec![3; count], &Vec::from_iter(0..count));
        }
        assert_eq!(gpu.objects_made(), made_for_more, "on {gpu:?}");
    }
}

#[test]
fn replies_make_no_objects() {
    for gpu in open(&GpuOptions::default()) {
        let model = load(&thin(), &gpu, CacheFormat::F16, 256).unwrap();
        let mut session = model.session();
        session.logits(&tokens(40, Sizes::VOCABULARY)).unwrap();
        let made = gpu.objects_made();
        session.generate_tokens(&[], greedy(100)).unwrap().text().unwrap();
        assert_eq!(session.tokens().len(), 140);
        session.fork().unwrap().logits(&tokens(70, Sizes::VOCABULARY)).unwrap();
        assert_eq!(gpu.objects_made(), made, "on {gpu:?}");
    }
}

#[test]
fn whatever_finds_no_room_while_loading_is_named() {
    for gpu in open(&GpuOptions::default()) {
        let world = World::new(&thin(), 64);
        let tokens = tokens(12, Sizes::VOCABULARY);
        let mut named = vec![];
        let mut executor = loop {
            gpu.order_fault(named.len() as u64 + 1, Fault::Memory);
            match world.load(&gpu, 8) {
                Ok(executor) => break executor,
                Err(Error::GpuMemory { what, bytes }) => {
                    let has_size = !what.starts_with("bindings of") && !what.starts_with("pipeline of");
                    assert!(!what.is_empty() && (bytes > 0) == has_size, "{what}: {bytes}");
                    named.push(what);
                }
                Err(error) => panic!("{error} after {named:?}"),
            }
        };
        for what in ["blk.0.ffn_down.weight", "cache", "activations", "bindings of embed.wgsl", "parameters"] {
            assert!(named.iter().any(|name| name == what), "{what} is not in {named:?}");
        }
        // The device is as good as new.
        gpu.order_fault(u64::MAX, Fault::Memory);
        let logits = world.logits(&mut executor, &tokens, &[8, 1]).unwrap();
        assert!(nmse(&logits, &world.cpu(&tokens, &[12])) < NMSE, "on {gpu:?}");
    }
}

#[test]
fn a_step_that_finds_no_room_leaves_the_sequence_as_it_was() {
    for gpu in open(&GpuOptions::default()) {
        let world = World::new(&thin(), 128);
        let (mut executor, tokens) = (world.load(&gpu, 16).unwrap(), tokens(60, Sizes::VOCABULARY));
        let mut sequence = world.cache.sequence();
        wait(&gpu, executor.run(Batch { tokens: &tokens[..40], outputs: &[39], texts: &[] }, &mut sequence)).unwrap();
        gpu.order_fault(1, Fault::Memory);
        let rest = Batch { tokens: &tokens[40..], outputs: &Vec::from_iter(0..20), texts: &[] };
        let error = wait(&gpu, executor.run(rest, &mut sequence)).unwrap_err();
        let Error::GpuMemory { what, bytes } = &error else { panic!("{error}") };
        assert_eq!((what.as_str(), *bytes, sequence.len()), ("results of a step", 16 * 128 * 4, 40));
        let logits = wait(&gpu, executor.run(rest, &mut sequence)).unwrap();
        assert!(nmse(&logits, &world.cpu(&tokens, &[60])[40 * 128..]) < NMSE, "on {gpu:?}");
    }
}

fn load(tiny: &Tiny, gpu: &Gpu, format: CacheFormat, context: u32) -> Result<Model> {
    let options = LoadOptions::new().sessions(4).context(context).cache_format(format);
    Model::load_on(Gguf::from_bytes(tiny.clone().tokenizer().bytes()).unwrap(), &options, std::slice::from_ref(gpu))
}

fn greedy(count: usize) -> Generate {
    Generate::new().greedy().ignore_end(true).max_tokens(count)
}

fn is_lost<T>(result: Result<T>) -> bool {
    let Err(Error::GpuLost { name, reason }) = result else { return false };
    !name.is_empty() && reason.contains("Destroyed")
}

#[test]
fn a_device_that_is_lost_before_or_while_loading_is_an_error() {
    for gpu in open(&GpuOptions::default()) {
        gpu.device().destroy();
        assert!(in_time(move || is_lost(load(&thin(), &gpu, CacheFormat::F16, 256))));
    }
    // At another place each time, and with different things under way.
    for nth in (1..100).step_by(9) {
        for gpu in open(&GpuOptions::default()) {
            gpu.order_fault(nth, Fault::Loss);
            let (before, after) = in_time(move || {
                let world = World::new(&thin(), 64);
                (world.load(&gpu, 16).map(drop), world.load(&gpu, 16).map(drop))
            });
            assert!(before.is_ok() && nth > 60 || is_lost(before) && is_lost(after), "at object {nth}");
        }
    }
}

#[test]
fn a_device_that_is_lost_between_steps_is_an_error_from_then_on() {
    for gpu in open(&GpuOptions::default()) {
        in_time(move || {
            let model = load(&thin(), &gpu, CacheFormat::F16, 256).unwrap();
            let mut session = model.session();
            session.logits(&[1, 2, 3]).unwrap();
            gpu.device().destroy();
            for _ in 0..2 {
                assert!(is_lost(session.logits(&[4])));
                assert!(is_lost(session.generate_tokens(&[], greedy(3)).unwrap().text()));
                assert!(is_lost(gpu.check()));
                assert_eq!(session.tokens(), [1, 2, 3], "what was held is still held");
            }
            // Steps without outputs read nothing back that could tell.
            let world = World::new(&thin(), 64);
            assert!(is_lost(world.load(&gpu, 8)));
        });
    }
}

#[test]
fn a_device_that_is_lost_while_generating_ends_the_reply() {
    let prompt = tokens(100, Sizes::VOCABULARY);
    let load = |gpu: &Gpu| load(&thin(), gpu, CacheFormat::F16, 4000).unwrap();
    for gpu in open(&GpuOptions::default()) {
        let (model, prompt) = (load(&gpu), prompt.clone());
        let (lost, held) = in_time(move || {
            let mut session = model.session();
            let mut reply = session.generate_tokens(&prompt, greedy(3800)).unwrap();
            reply.next().unwrap().unwrap();
            gpu.device().destroy();
            (is_lost(reply.text()) && is_lost(session.logits(&[])), session.tokens().to_vec())
        });
        assert!(lost);
        // Every token was chosen of real logits.
        let healthy = load(&open(&GpuOptions::default()).remove(0));
        let (mut session, generated) = (healthy.session(), held.len() - 100);
        session.generate_tokens(&held[..100], greedy(generated)).unwrap().text().unwrap();
        assert!(generated > 0 && held == session.tokens());
    }
}

#[test]
fn a_step_without_outputs_on_a_lost_device_is_an_error() {
    for gpu in open(&GpuOptions::default()) {
        let world = World::new(&thin(), 64);
        let mut executor = world.load(&gpu, 8).unwrap();
        let mut sequence = world.cache.sequence();
        gpu.device().destroy();
        for _ in 0..2 {
            assert!(is_lost(wait(
                &gpu,
                executor.run(Batch { tokens: &[1; 20], outputs: &[], texts: &[] }, &mut sequence)
            )));
            assert_eq!((sequence.len(), sequence.reserved()), (0, 0));
        }
    }
}

/// Opens the device, with bindings of so many bytes.
fn with_bindings(bytes: u64) -> Vec<Gpu> {
    let mut options = GpuOptions::default();
    options.binding_bytes = Some(bytes);
    open(&options)
}

#[test]
fn models_many_times_a_binding_run() {
    // Rows of the matrices have 512 bytes, pages at least 16 KiB, and eight rows of 601 logits 19 KiB.
    for (architecture, vocabulary, binding) in
        [("llama", 169, 17_000), ("qwen2", 601, 21_000), ("gemma2", 169, 40_000), ("phi3", 169, 16 << 10)]
    {
        let tiny = Tiny::new(architecture).vocabulary(vocabulary);
        let world = World::new(&tiny, 64);
        let tokens = tokens(50, vocabulary);
        let expected = world.cpu(&tokens, &[50]);
        for gpu in with_bindings(binding) {
            let mut executor = world.load(&gpu, 64).unwrap();
            assert!(executor.weight_bytes() > 8 * binding && executor.cache_bytes() > 3 * binding);
            let roomy = open(&GpuOptions::default()).remove(0);
            let mut whole = world.load(&roomy, 64).unwrap();
            for lengths in [&[50][..], &[19, 1, 9]] {
                let logits = world.logits(&mut executor, &tokens, lengths).unwrap();
                let error = nmse(&logits, &expected);
                assert!(error < NMSE, "{architecture} by {lengths:?} on {gpu:?}: {error:e} from the CPU");
                let error = nmse(&logits, &world.logits(&mut whole, &tokens, lengths).unwrap());
                assert!(error < NMSE, "{architecture} by {lengths:?} on {gpu:?}: {error:e} from large bindings");
            }
        }
    }
}

#[test]
fn quantized_models_many_times_a_binding_run() {
    let mut tiny = Tiny::new("llama").vocabulary(133);
    for (name, kind) in [("output.weight", TensorType::Q8_0), ("token_embd.weight", TensorType::Q4_0)] {
        tiny = tiny.store_as(name, kind);
    }
    for layer in 0..2 {
        tiny = tiny.store_as(&format!("blk.{layer}.ffn_gate.weight"), TensorType::Q5_0);
        tiny = tiny.store_as(&format!("blk.{layer}.ffn_up.weight"), TensorType::Q5_0);
    }
    let (world, tokens) = (World::new(&tiny, 128), tokens(50, 133));
    for gpu in with_bindings(17_000) {
        let roomy = open(&GpuOptions::default()).remove(0);
        // Chunks of the same length, or others of the kernels round activations to eight bits.
        let whole = world.logits(&mut world.load(&roomy, 8).unwrap(), &tokens, &[8, 1]).unwrap();
        let split = world.logits(&mut world.load(&gpu, 8).unwrap(), &tokens, &[8, 1]).unwrap();
        assert!(nmse(&split, &whole) < NMSE, "on {gpu:?}");
    }
}

#[test]
fn bindings_too_small_are_an_error_that_names_what_was_to_be_bound() {
    let found = |tiny: Tiny, bytes: u64| {
        let gpu = with_bindings(bytes).pop()?;
        let error = World::new(&tiny, 64).load(&gpu, 8).unwrap_err();
        let Error::Gpu { subject, found, expected } = error else { panic!("{error}") };
        assert_eq!(found, format!("a limit of {bytes} bytes"));
        Some((subject, expected))
    };
    let Some((subject, expected)) = found(thin(), 100) else { return };
    // Queries, keys and values are 80 numbers together.
    assert_eq!((subject.as_str(), expected.as_str()), ("binding for activations", "at least 2560, for 8 rows"));
    let pages = Sizes { kv_heads: vec![2], heads: vec![2], head_size: 64, ..Sizes::thin(1) };
    let (subject, expected) = found(Tiny::with_sizes("llama", pages), 20_000).unwrap_or_default();
    assert_eq!((subject.as_str(), expected.as_str()), ("binding for a page of the cache", "at least 32768"));
    // A program's activations are refused before its matrices are.
    for gpu in with_bindings(1000) {
        let layout = Layout::of(TensorType::F32).unwrap();
        let row = |_| Ok(std::borrow::Cow::Owned(vec![0; 512]));
        let error = wait(&gpu, Matrix::upload(&gpu, "blk.0.ffn_up.weight", layout, (8, 128), 2, row)).unwrap_err();
        let Error::Gpu { subject, found, expected } = error else { panic!("{error}") };
        assert_eq!(subject, "binding for blk.0.ffn_up.weight");
        assert_eq!((found.as_str(), expected.as_str()), ("a limit of 1000 bytes", "at least 1024, for 2 rows"));
    }
}

#[test]
fn a_device_of_the_application_needs_nothing_beyond_webgpu() {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor);
    for adapter in pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY)) {
        if !open(&GpuOptions::default()).iter().any(|gpu| gpu.info().name == adapter.get_info().name) {
            continue;
        }
        // No handler for errors either: what nobody catches panics.
        let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
        let gpu = pollster::block_on(Gpu::from_wgpu(&adapter, device, queue)).unwrap();
        for (tiny, vocabulary) in [(Tiny::new("llama"), 128), (Tiny::new("gemma3").vocabulary(131), 131)] {
            let (world, tokens) = (World::new(&tiny, 128), tokens(70, vocabulary));
            let logits = world.logits(&mut world.load(&gpu, 32).unwrap(), &tokens, &[37, 1, 5]).unwrap();
            let error = nmse(&logits, &world.cpu(&tokens, &[70]));
            assert!(error < NMSE, "{error:e} on {gpu:?}");
        }
    }
}

#[test]
fn batches_that_cannot_be_run_are_errors_as_on_the_cpu() {
    let world = World::new(&thin(), 40);
    let cpu = Executor::new(world.file.clone(), world.program.clone(), ExecutorOptions::default()).unwrap();
    let mut memory = PageMemory::new(&world.cache, CacheFormat::F32).unwrap();
    for gpu in open(&GpuOptions::default()) {
        let mut executor = world.load(&gpu, 16).unwrap();
        let mut sequences = [world.cache.sequence(), world.cache.sequence()];
        let mut both = |tokens: &[u32], outputs: &[usize]| {
            let [on_cpu, on_gpu] = &mut sequences;
            let batch = Batch { tokens, outputs, texts: &[] };
            let expected = cpu.run(batch, on_cpu, &mut memory).map_err(|error| error.to_string());
            let found = wait(&gpu, executor.run(batch, on_gpu)).map_err(|error| error.to_string());
            assert_eq!((on_gpu.len(), on_gpu.reserved()), (on_cpu.len(), on_cpu.reserved()));
            match (&found, &expected) {
                (Ok(found), Ok(expected)) => assert!(nmse(found, expected) < NMSE),
                _ => assert_eq!(found, expected),
            }
            found.is_ok()
        };
        // Longer than a chunk.
        assert!(both(&[1; 30], &[3, 15, 16, 29]));
        assert!(
            !both(&[], &[])
                && !both(&[128], &[0])
                && !both(&[1; 9], &[9])
                && !both(&[1, 2], &[1, 0])
                && !both(&[1], &[0, 0])
        );
        // Longer than the context: at once, and in the second chunk.
        assert!(!both(&[1; 11], &[10]) && !both(&[1; 500], &[499]) && !both(&[1; 17], &[]));
        assert!(both(&[1; 10], &[9]) && !both(&[1], &[0]));
    }
}

#[test]
fn sessions_that_fork_go_on_as_if_alone() {
    for gpu in open(&GpuOptions::default()) {
        for format in [CacheFormat::F32, CacheFormat::Q8_0] {
            // A window, so that there are two groups of pages.
            check_forks(&load(&Tiny::new("gemma2"), &gpu, format, 64).unwrap());
        }
    }
    // Pages in several slabs: copies go from one to another.
    for gpu in with_bindings(40_000) {
        check_forks(&load(&Tiny::new("llama"), &gpu, CacheFormat::F32, 64).unwrap());
    }
}

fn check_forks(model: &Model) {
    let prompt = tokens(40, Sizes::VOCABULARY);
    let continuations: [&[u32]; 3] = [&[1, 2, 3], &[100, 9], &[77]];
    let mut trunk = model.session();
    trunk.logits(&prompt).unwrap();
    let mut sessions = vec![trunk.fork().unwrap(), trunk.fork().unwrap(), trunk];
    // They write to what was one page, in turns.
    let first: Vec<_> = sessions.iter_mut().zip(continuations).map(|(session, next)| session.logits(next)).collect();
    let generate = |session: &mut Session| session.generate_tokens(&[], greedy(12)).unwrap().text().map(drop);
    for session in &mut sessions {
        generate(session).unwrap();
    }
    let last: Vec<_> = sessions.iter_mut().map(|session| session.logits(&[5])).collect();
    let found = sessions.into_iter().zip(first.into_iter().zip(last));
    for ((session, (first, last)), next) in found.zip(continuations) {
        let mut alone = model.session();
        alone.logits(&prompt).unwrap();
        assert!(nmse(&first.unwrap(), &alone.logits(next).unwrap()) < NMSE);
        generate(&mut alone).unwrap();
        assert!(nmse(&last.unwrap(), &alone.logits(&[5]).unwrap()) < NMSE);
        assert_eq!(session.tokens(), alone.tokens());
    }
}

#[test]
fn vocabularies_of_any_length_have_logits_of_that_length() {
    for gpu in open(&GpuOptions::default()) {
        for (architecture, vocabulary, tied) in [("llama", 33, false), ("qwen2", 101, true), ("gemma2", 5, true)] {
            let tiny = Tiny::new(architecture).vocabulary(vocabulary);
            let has_output = architecture != "gemma2";
            let tiny = if tied && has_output { tiny.remove("output.weight") } else { tiny };
            let (world, tokens) = (World::new(&tiny, 128), tokens(45, vocabulary));
            let mut executor = world.load(&gpu, 32).unwrap();
            for lengths in [&[45][..], &[20, 1, 3]] {
                let logits = world.logits(&mut executor, &tokens, lengths).unwrap();
                assert_eq!(logits.len(), 45 * vocabulary);
                let error = nmse(&logits, &world.cpu(&tokens, lengths));
                assert!(error < NMSE, "{architecture} of {vocabulary} tokens by {lengths:?}: {error:e} on {gpu:?}");
            }
        }
    }
}

/// Tasks may go from thread to thread.
fn sendable<T: Send>(future: T) -> T {
    future
}

#[test]
fn a_run_that_is_given_up_does_no_harm() {
    for gpu in open(&GpuOptions::default()) {
        let world = World::new(&thin(), 128);
        let (mut executor, tokens) = (world.load(&gpu, 16).unwrap(), tokens(50, Sizes::VOCABULARY));
        let mut trunk = world.cache.sequence();
        wait(&gpu, executor.run(Batch { tokens: &tokens[..40], outputs: &[39], texts: &[] }, &mut trunk)).unwrap();
        let mut branch: Sequence = trunk.fork();
        let rest = Batch { tokens: &tokens[40..], outputs: &Vec::from_iter(0..10), texts: &[] };
        {
            // Polled once: what was submitted is on its way, and nobody will hear of it.
            let mut run = std::pin::pin!(sendable(executor.run(rest, &mut branch)));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(run.as_mut().poll(&mut context).is_pending());
        }
        assert_eq!(branch.len(), 40);
        let expected = world.cpu(&tokens, &[50]).split_off(40 * 128);
        for sequence in [&mut branch, &mut trunk] {
            assert!(nmse(&wait(&gpu, executor.run(rest, sequence)).unwrap(), &expected) < NMSE, "on {gpu:?}");
        }
    }
}
