//! A program that is cut: which steps run on which device, and what crosses over between them.

use super::{Op, Program, SlotId, Step};
use std::collections::HashSet;
use std::ops::Range;

/// Neighbouring steps that run on one device, and what crosses over to it and from it. A slot stays on a device where it
/// was last written until another writes it, so only what another device has written is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The device, as an index.
    pub device: usize,
    /// Which steps.
    pub steps: Range<usize>,
    /// What has to be brought here before the first of them.
    pub given: Vec<SlotId>,
    /// What another device, or whoever runs the program, takes from here after the last of them.
    pub wanted: Vec<SlotId>,
}

impl Program {
    /// The program as one segment.
    pub fn whole(&self) -> Vec<Segment> {
        self.segments(&vec![0; self.steps.len()])
    }

    /// The program cut where the device changes. `devices` says where each step runs.
    pub fn segments(&self, devices: &[usize]) -> Vec<Segment> {
        let mut segments: Vec<Segment> = vec![];
        for (at, &device) in devices.iter().enumerate().take(self.steps.len()) {
            match segments.last_mut() {
                Some(last) if last.device == device => last.steps.end = at + 1,
                _ => segments.push(Segment { device, steps: at..at + 1, given: vec![], wanted: vec![] }),
            }
        }
        // Which devices have what a slot holds now, and which segment wrote it.
        let mut holders: Vec<(Vec<usize>, usize)> = vec![(vec![], 0); self.slots.len()];
        for index in 0..segments.len() {
            let Segment { device, steps, .. } = segments[index].clone();
            for op in self.steps[steps].iter().map(|step| &step.op) {
                for slot in op.reads() {
                    let (devices, writer) = &mut holders[slot.0];
                    if !devices.is_empty() && !devices.contains(&device) {
                        devices.push(device);
                        segments[index].given.push(slot);
                        if !segments[*writer].wanted.contains(&slot) {
                            segments[*writer].wanted.push(slot);
                        }
                    }
                }
                op.writes().into_iter().for_each(|slot| holders[slot.0] = (vec![device], index));
            }
        }
        if let Some(output) = self.output
            && let Some(segment) = segments.get_mut(holders[output.0].1)
        {
            segment.wanted.push(output);
        }
        segments
    }

    /// Whether a device goes on with what it wrote before another had its turn: then a second batch cannot come in between.
    pub fn keeps_slots(&self, segments: &[Segment]) -> bool {
        segments.iter().any(|segment| {
            let mut here: HashSet<SlotId> = segment.given.iter().copied().collect();
            self.steps.get(segment.steps.clone()).unwrap_or_default().iter().any(|step| {
                let keeps = step.op.reads().iter().any(|slot| !here.contains(slot));
                here.extend(step.op.writes());
                keeps
            })
        })
    }

    /// The layers of which something is kept where these segments run.
    pub fn cached_layers(&self, segments: &[Segment]) -> HashSet<u32> {
        let steps = segments.iter().flat_map(|segment| self.steps.get(segment.steps.clone()).unwrap_or_default());
        let layer = |op: &Op| match (op.key_values(), op.state()) {
            (Some(id), _) => self.key_values.get(id.0).map(|kept| kept.layer),
            (None, Some(id)) => self.states.get(id.0).map(|state| state.layer),
            (None, None) => None,
        };
        steps.filter_map(|step| layer(&step.op)).map(|layer| layer as u32).collect()
    }

    /// Whether nobody reads a slot from step `at` on before it is written anew.
    pub fn is_dead(&self, at: usize, slot: SlotId) -> bool {
        for Step { op, .. } in self.steps.iter().skip(at) {
            if op.reads().contains(&slot) {
                return false;
            }
            if op.writes().contains(&slot) {
                return true;
            }
        }
        self.output != Some(slot)
    }
}
