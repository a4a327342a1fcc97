//! From a program to what is dispatched: steps that one kernel can do together become one [`Node`].
//!
//! | steps | node |
//! |---|---|
//! | matrices of one type times one input, into neighbouring slots | one product of a stacked matrix |
//! | a product, then its sum with another slot | a product that adds |
//! | two products, then a gated unit | a product of rows in pairs |
//! | products of experts, likewise | the same, with several matrices for each token |
//! | what experts came to is added up, then added to another slot | one sum |
//! | norms of the heads of queries and keys, their rotations, then the store | one rotation that does all of it |
//! | norms of all queries and of all keys of a row | one norm of both |
//! | what is added, normalised or scaled; a sum of two slots; its norm | one norm that adds first, or only adds |
//!
//! A step is left out of its own node only if nobody else reads what it would have written. Slots that are written by
//! one linear step lie side by side in one buffer, so that a stacked matrix writes them at once.

use super::experts::Mixture;
use crate::program::{
    Activation, KeyValuesId, NormKind, Op, Product, Program, RopeId, Routing, RowOf, Rows, Runs, Scan, Sees, Segment,
    SlotId, StateId, WeightId,
};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// What one kernel does.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// The table's row of each token.
    Embed { table: WeightId, out: SlotId },
    /// As [`Op::AddRow`].
    AddRow { table: WeightId, row: RowOf, to: SlotId },
    /// As [`Op::AttendTexts`].
    AttendTexts {
        queries: SlotId,
        keys: SlotId,
        values: SlotId,
        heads: usize,
        sees: Sees,
        scale: f32,
        softcap: Option<f32>,
        most_bias: Option<f32>,
        out: SlotId,
    },
    /// Rows with outputs.
    Select { input: SlotId, out: SlotId },
    /// As [`Op::Norm`], of the sum of two slots if there is one to be added first. Without a kind the sum is all.
    Norm {
        kind: Option<NormKind>,
        addend: Option<Addend>,
        input: SlotId,
        second: Option<Second>,
        group: usize,
        epsilon: f32,
        weight: Option<WeightId>,
        bias: Option<WeightId>,
        out: SlotId,
    },
    /// A stacked matrix times one input.
    Product(Stack),
    /// Turns queries, and keys on their way into the cache.
    Rotate(Rotation),
    /// As [`Op::Attend`].
    Attend {
        queries: SlotId,
        over: KeyValuesId,
        heads: usize,
        scale: f32,
        softcap: Option<f32>,
        sinks: Option<WeightId>,
        out: SlotId,
    },
    /// As [`Op::Gate`] or, if there is nothing to multiply with, [`Op::Activate`].
    Gate { activation: Activation, gate: SlotId, up: Option<SlotId>, out: SlotId },
    /// As [`Op::Temper`].
    Temper { slot: SlotId, slope: f32, interval: usize, offset: usize },
    /// As [`Op::Route`].
    Route { logits: SlotId, routing: Routing, out: SlotId },
    /// As [`Op::Mix`], or added to what is there.
    Mix { parts: SlotId, routes: SlotId, out: SlotId, add: bool },
    /// As [`Op::Convolve`].
    Convolve { input: SlotId, over: StateId, weight: WeightId, bias: Option<WeightId>, out: SlotId },
    /// As [`Op::Scan`].
    Scan(Scan),
    /// As [`Op::Copy`].
    Copy { parts: Vec<Runs>, out: SlotId },
    /// As [`Op::Scale`].
    Scale { slot: SlotId, factor: f32 },
    /// As [`Op::Softcap`].
    Softcap { slot: SlotId, cap: f32 },
}

impl Node {
    /// The slots that it reads, but for the input of a product.
    fn reads(&self) -> Vec<SlotId> {
        match self {
            Node::Embed { .. } => vec![],
            Node::AddRow { to, .. } => vec![*to],
            Node::AttendTexts { queries, keys, values, .. } => vec![*queries, *keys, *values],
            Node::Select { input, .. } => vec![*input],
            Node::Norm { input, addend, second, .. } => {
                let others = [addend.map(|addend| addend.slot), second.map(|second| second.slot)];
                [*input].into_iter().chain(others.into_iter().flatten()).collect()
            }
            Node::Product(stack) => {
                let routes = stack.mixture.and_then(|mixture| mixture.routes);
                stack.add.then_some(stack.out).into_iter().chain(routes).collect()
            }
            Node::Route { logits, .. } => vec![*logits],
            Node::Convolve { input, .. } => vec![*input],
            Node::Scan(scan) => [scan.input, scan.steps].into_iter().chain(scan.writes).collect(),
            Node::Copy { parts, .. } => parts.iter().map(|part| part.from).collect(),
            Node::Mix { parts, routes, out, add } => [*parts, *routes].into_iter().chain(add.then_some(*out)).collect(),
            Node::Rotate(rotation) => {
                let stored = rotation.store.iter().flat_map(|(keys, values, _)| [Some(*keys), *values]).flatten();
                rotation.turned.iter().map(|(slot, ..)| *slot).chain(stored).collect()
            }
            Node::Attend { queries, .. } => vec![*queries],
            Node::Gate { gate, up, .. } => [*gate].into_iter().chain(*up).collect(),
            Node::Scale { slot, .. } | Node::Softcap { slot, .. } | Node::Temper { slot, .. } => vec![*slot],
        }
    }

    /// The slots that it writes.
    fn writes(&self) -> Vec<SlotId> {
        match self {
            Node::Embed { out, .. } | Node::Select { out, .. } | Node::AttendTexts { out, .. } => vec![*out],
            Node::AddRow { to, .. } => vec![*to],
            Node::Norm { out, input, addend, second, .. } => {
                let others = [addend.map(|_| *input), second.map(|second| second.slot)];
                [*out].into_iter().chain(others.into_iter().flatten()).collect()
            }
            Node::Product(stack) if stack.add || stack.gate.is_some() => vec![stack.out],
            Node::Product(stack) => stack.products.iter().map(|product| product.out).collect(),
            Node::Rotate(rotation) => rotation.turned.iter().map(|(slot, ..)| *slot).collect(),
            Node::Attend { out, .. } | Node::Gate { out, .. } => vec![*out],
            Node::Route { out, .. } | Node::Mix { out, .. } => vec![*out],
            Node::Convolve { out, .. } | Node::Copy { out, .. } | Node::Scan(Scan { out, .. }) => vec![*out],
            Node::Scale { slot, .. } | Node::Softcap { slot, .. } | Node::Temper { slot, .. } => vec![*slot],
        }
    }
}

impl Node {
    /// The vectors of weights that it reads, but for the biases of products.
    pub fn vectors(&self) -> Vec<WeightId> {
        let all = match self {
            Node::Norm { addend, second, weight, bias, .. } => {
                [*weight, *bias, addend.and_then(|addend| addend.norm), second.map(|second| second.weight)]
            }
            Node::Rotate(Rotation { norm: Some(norm), .. }) => [Some(norm.queries), Some(norm.keys), None, None],
            Node::Attend { sinks, .. } => [*sinks, None, None, None],
            Node::Route { routing, .. } => [routing.bias, routing.scales, None, None],
            Node::Convolve { weight, bias, .. } => [Some(*weight), *bias, None, None],
            Node::Scan(scan) => [Some(scan.step_bias), Some(scan.decay), scan.skip, None],
            _ => [None; 4],
        };
        all.into_iter().flatten().collect()
    }
}

/// Matrices of one type, one above the other, times one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Stack {
    /// The input.
    pub input: SlotId,
    /// The matrices; with a gate, the one that goes through the curve comes first.
    pub products: Vec<Product>,
    /// Where results go: of all matrices from the first's slot on, or the gated unit's.
    pub out: SlotId,
    /// The results are added to what is there.
    pub add: bool,
    /// The rows of two matrices alternate, and make one row of results.
    pub gate: Option<Activation>,
    /// There are several matrices instead of each of these, with results side by side.
    pub mixture: Option<Mixture>,
}

impl Stack {
    /// Rows of results of a product, of one of its matrices if there are several.
    pub fn rows(&self, program: &Program, product: &Product) -> usize {
        program.slots[product.out.0].width / self.mixture.map_or(1, |mixture| mixture.choices)
    }

    /// How many matrices there are instead of each.
    pub fn matrices(&self) -> usize {
        self.mixture.map_or(1, |mixture| mixture.matrices)
    }
}

/// What happens to queries, keys and values between their matrices and attention.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    /// How the heads of queries and keys are normalised before.
    pub norm: Option<HeadNorm>,
    /// Slots that are turned in place, and their heads' size.
    pub turned: Vec<(SlotId, usize, RopeId)>,
    /// Keys and values that are stored after that; no values where they are in the keys.
    pub store: Option<(SlotId, Option<SlotId>, KeyValuesId)>,
}

/// What is added before a norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Addend {
    /// The slot.
    pub slot: SlotId,
    /// It is normalised before, all of the row by RMS, with these weights. The slot then stays as it is.
    pub norm: Option<WeightId>,
    /// And multiplied. The slot then stays as it is.
    pub factor: f32,
}

/// What lies beside a slot, and is normalised in the same way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Second {
    /// The slot.
    pub slot: SlotId,
    /// Its weights.
    pub weight: WeightId,
}

/// Norms of each head of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadNorm {
    /// The weights for queries.
    pub queries: WeightId,
    /// Those for keys.
    pub keys: WeightId,
    /// Added before the root is taken.
    pub epsilon: f32,
}

/// Where a slot lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Which buffer.
    pub buffer: usize,
    /// The first number of a row.
    pub start: u32,
    /// From one row to the next.
    pub stride: u32,
}

/// The nodes of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which nodes.
    pub nodes: Range<usize>,
    /// The slots that are read behind it, here or elsewhere.
    pub living: HashSet<SlotId>,
}

/// What is dispatched, and where slots lie.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// In order.
    pub nodes: Vec<Node>,
    /// Its segments.
    pub parts: Vec<Part>,
    /// Of each slot.
    pub views: Vec<View>,
    /// Numbers a row of each buffer, and how many rows there are.
    pub buffers: Vec<(u32, Rows)>,
}

impl Plan {
    /// The plan of some segments of a program.
    pub fn new(program: &Program, segments: &[Segment]) -> Self {
        let (views, buffers) = place(program);
        let mut plan = Plan { nodes: vec![], parts: vec![], views, buffers };
        let ops: Vec<&Op> = program.steps.iter().map(|step| &step.op).collect();
        for segment in segments {
            let (mut at, first, end) = (segment.steps.start, plan.nodes.len(), segment.steps.end);
            while at < end {
                at += plan.take(program, &ops[..end], at);
            }
            let living = (0..program.slots.len()).map(SlotId).filter(|&slot| !program.is_dead(end, slot)).collect();
            plan.parts.push(Part { nodes: first..plan.nodes.len(), living });
        }
        plan.leave_out_unused(program, segments);
        plan
    }

    fn is_slice(&self, parts: &[Runs], out: SlotId) -> bool {
        let buffer = |slot: SlotId| self.views[slot.0].buffer;
        parts.iter().all(|part| buffer(part.from) == buffer(out))
    }

    /// Takes no room for slots that these segments have nothing to do with.
    fn leave_out_unused(&mut self, program: &Program, segments: &[Segment]) {
        let ops = segments.iter().flat_map(|segment| &program.steps[segment.steps.clone()]).map(|step| &step.op);
        let used: HashSet<usize> = ops
            .flat_map(|op| op.reads().into_iter().chain(op.writes()))
            .map(|slot| self.views[slot.0].buffer)
            .collect();
        for (index, (stride, _)) in self.buffers.iter_mut().enumerate() {
            if !used.contains(&index) {
                *stride = 0;
            }
        }
    }

    /// The products that take what a node writes to a slot, if nobody else does.
    pub fn products_of(&self, node: usize, slot: SlotId) -> Option<Vec<&Stack>> {
        let mut products = vec![];
        let part = self.parts.iter().find(|part| part.nodes.contains(&node))?;
        for later in &self.nodes[node + 1..part.nodes.end] {
            if later.reads().contains(&slot) {
                return None;
            }
            if let Node::Product(stack) = later
                && stack.input == slot
            {
                products.push(stack);
            }
            if later.writes().contains(&slot) {
                return Some(products);
            }
        }
        (!part.living.contains(&slot)).then_some(products)
    }

    /// Turns the steps from `at` on into nodes; returns how many were taken.
    fn take(&mut self, program: &Program, ops: &[&Op], at: usize) -> usize {
        let node = match ops[at] {
            Op::Linear { input, products } => return self.linear(program, ops, at, *input, products),
            Op::Experts { input, routes, experts, products } => {
                let mixture = Mixture::of(program, *input, *routes, *experts, products);
                return self.experts(program, ops, at, *input, products, mixture);
            }
            Op::Rotate { .. } | Op::Store { .. } => return self.rotation(ops, at, None),
            Op::Norm { .. } if let Some((node, count)) = self.changed_sum(program, ops, at) => {
                self.nodes.push(node);
                return count;
            }
            Op::Scale { .. } if let Some((node, count)) = self.changed_sum(program, ops, at) => {
                self.nodes.push(node);
                return count;
            }
            Op::Norm { .. } if let Some(norm) = head_norm(ops, at) => {
                return 2 + self.rotation(ops, at + 2, Some(norm));
            }
            Op::Norm { .. } if let Some(node) = self.both_norms(program, ops, at) => {
                self.nodes.push(node);
                return 2;
            }
            Op::Add { from, to } => {
                let addend = Addend { slot: *from, norm: None, factor: 1.0 };
                let (node, count) = self.sum(program, ops, at, addend, *to, 0.0);
                self.nodes.push(node);
                return count;
            }
            Op::Embed { table, out } => Node::Embed { table: *table, out: *out },
            Op::Select { input, out } => Node::Select { input: *input, out: *out },
            &Op::Norm { kind, input, group, epsilon, weight, bias, out } => {
                Node::Norm { kind: Some(kind), addend: None, input, second: None, group, epsilon, weight, bias, out }
            }
            &Op::Attend { queries, over, heads, scale, softcap, sinks, out } => {
                Node::Attend { queries, over, heads, scale, softcap, sinks, out }
            }
            &Op::Gate { activation, gate, up, out } => Node::Gate { activation, gate, up: Some(up), out },
            &Op::Activate { activation, slot } => Node::Gate { activation, gate: slot, up: None, out: slot },
            &Op::Temper { slot, slope, interval, offset } => Node::Temper { slot, slope, interval, offset },
            &Op::Route { logits, routing, out } => Node::Route { logits, routing, out },
            &Op::Mix { parts, routes, out } => match ops.get(at + 1) {
                Some(&&Op::Add { from, to }) if from == out && program.is_dead(at + 2, out) => {
                    self.nodes.push(Node::Mix { parts, routes, out: to, add: true });
                    return 2;
                }
                _ => Node::Mix { parts, routes, out, add: false },
            },
            &Op::Convolve { input, over, weight, bias, out } => Node::Convolve { input, over, weight, bias, out },
            &Op::Scan(scan) => Node::Scan(scan),
            // A slice lies where it would be copied from.
            Op::Copy { parts, out } if self.is_slice(parts, *out) => return 1,
            Op::Copy { parts, out } => Node::Copy { parts: parts.clone(), out: *out },
            &Op::AddRow { table, row, to } => Node::AddRow { table, row, to },
            &Op::AttendTexts { queries, keys, values, heads, sees, scale, softcap, most_bias, out } => {
                Node::AttendTexts { queries, keys, values, heads, sees, scale, softcap, most_bias, out }
            }
            &Op::Scale { slot, factor } => Node::Scale { slot, factor },
            &Op::Softcap { slot, cap } => Node::Softcap { slot, cap },
        };
        self.nodes.push(node);
        1
    }

    /// The sum at `at`, with the norm behind it if there is one that its kernel can do; and how many steps that is.
    fn sum(
        &self,
        program: &Program,
        ops: &[&Op],
        at: usize,
        addend: Addend,
        to: SlotId,
        addend_epsilon: f32,
    ) -> (Node, usize) {
        let width = program.slots[to.0].width;
        // A kernel binds no buffer twice, and has one epsilon.
        let apart =
            |out: SlotId| [addend.slot, to].iter().all(|slot| self.views[slot.0].buffer != self.views[out.0].buffer);
        if let Some(&&Op::Norm { kind, input, group, epsilon, weight, bias, out }) = ops.get(at + 1)
            && input == to
            && apart(out)
            && (addend.norm.is_none() || (group, epsilon) == (width, addend_epsilon))
        {
            let (kind, addend) = (Some(kind), Some(addend));
            return (Node::Norm { kind, addend, input, second: None, group, epsilon, weight, bias, out }, 2);
        }
        let sum = Node::Norm {
            kind: None,
            addend: Some(addend),
            input: to,
            second: None,
            group: width,
            epsilon: addend_epsilon,
            weight: None,
            bias: None,
            out: to,
        };
        (sum, 1)
    }

    /// What is normalised or scaled at `at` only to be added to something, the sum, and a norm behind it.
    fn changed_sum(&self, program: &Program, ops: &[&Op], at: usize) -> Option<(Node, usize)> {
        let Op::Add { from, to } = **ops.get(at + 1)? else { return None };
        let width = program.slots[from.0].width;
        let (slot, norm, factor, epsilon) = match *ops[at] {
            Op::Scale { slot, factor } => (slot, None, factor, 0.0),
            _ => {
                let (slot, _, epsilon, weight) = plain_norm(ops[at]).filter(|(_, group, ..)| *group == width)?;
                (slot, Some(weight), 1.0, epsilon)
            }
        };
        let is_apart = self.views[from.0].buffer != self.views[to.0].buffer;
        if slot != from || !is_apart || !program.is_dead(at + 2, from) {
            return None;
        }
        let (node, count) = self.sum(program, ops, at + 1, Addend { slot, norm, factor }, to, epsilon);
        Some((node, 1 + count))
    }

    /// The norms of two neighbours, each of all of its row.
    fn both_norms(&self, program: &Program, ops: &[&Op], at: usize) -> Option<Node> {
        let of_row = |op: &Op| plain_norm(op).filter(|&(slot, group, ..)| group == program.slots[slot.0].width);
        let (input, group, epsilon, weight) = of_row(ops[at])?;
        let (slot, _, same, second) = of_row(ops.get(at + 1)?)?;
        let views = [input, slot].map(|slot| self.views[slot.0]);
        (same == epsilon && input != slot && views[0].buffer == views[1].buffer).then_some(Node::Norm {
            kind: Some(NormKind::Rms),
            addend: None,
            input,
            second: Some(Second { slot, weight: second }),
            group,
            epsilon,
            weight: Some(weight),
            bias: None,
            out: input,
        })
    }

    fn linear(&mut self, program: &Program, ops: &[&Op], at: usize, input: SlotId, products: &[Product]) -> usize {
        let kind = |product: &Product| program.weights[product.weight.0].tensor_type;
        let width = |slot: SlotId| program.slots[slot.0].width;
        let next = ops.get(at + 1);
        if let ([product], Some(&&Op::Add { from, to })) = (products, next)
            && product.out == from
            && to != input
            && program.is_dead(at + 2, from)
        {
            let stack = Stack { input, products: products.to_vec(), out: to, add: true, gate: None, mixture: None };
            self.nodes.push(Node::Product(stack));
            return 2;
        }
        if let Some(stack) = self.gated(program, ops, at, input, products, None) {
            self.nodes.push(Node::Product(stack));
            return 2;
        }
        let mut rest = products;
        while let Some(first) = rest.first() {
            let mut count = 1;
            while let [before, product, ..] = &rest[count - 1..]
                && kind(product) == kind(first)
                && self.is_beside(before.out, width(before.out), product.out)
            {
                count += 1;
            }
            let (stacked, others) = rest.split_at(count);
            let products = stacked.to_vec();
            let stack = Stack { input, products, out: first.out, add: false, gate: None, mixture: None };
            self.nodes.push(Node::Product(stack));
            rest = others;
        }
        1
    }

    /// Products of experts: their results lie side by side already, so only gated units put two together.
    fn experts(
        &mut self,
        program: &Program,
        ops: &[&Op],
        at: usize,
        input: SlotId,
        products: &[Product],
        mixture: Mixture,
    ) -> usize {
        if let Some(stack) = self.gated(program, ops, at, input, products, Some(mixture)) {
            self.nodes.push(Node::Product(stack));
            return 2;
        }
        self.nodes.extend(products.iter().map(|product| {
            let (products, mixture) = (vec![product.clone()], Some(mixture));
            Node::Product(Stack { input, products, out: product.out, add: false, gate: None, mixture })
        }));
        1
    }

    /// Two products at `at`, and the gated unit that follows, if nobody else reads them.
    fn gated(
        &self,
        program: &Program,
        ops: &[&Op],
        at: usize,
        input: SlotId,
        products: &[Product],
        mixture: Option<Mixture>,
    ) -> Option<Stack> {
        let kind = |product: &Product| program.weights[product.weight.0].tensor_type;
        let width = |slot: SlotId| program.slots[slot.0].width;
        let [first, second] = products else { return None };
        let Op::Gate { activation, gate, up, out } = **ops.get(at + 1)? else { return None };
        let is_read = |slot: SlotId| slot != out && !program.is_dead(at + 2, slot);
        if kind(first) != kind(second) || width(gate) != width(up) || out == input || is_read(gate) || is_read(up) {
            return None;
        }
        let products = match (first.out == gate && second.out == up, first.out == up && second.out == gate) {
            (true, _) => vec![first.clone(), second.clone()],
            (_, true) => vec![second.clone(), first.clone()],
            _ => return None,
        };
        Some(Stack { input, products, out, add: false, gate: Some(activation), mixture })
    }

    /// Whether a slot begins where another of this width ends.
    fn is_beside(&self, before: SlotId, width: usize, slot: SlotId) -> bool {
        let (before, view) = (self.views[before.0], self.views[slot.0]);
        before.buffer == view.buffer && before.start + width as u32 == view.start
    }

    fn rotation(&mut self, ops: &[&Op], at: usize, norm: Option<HeadNorm>) -> usize {
        let mut rotation = Rotation { norm, turned: vec![], store: None };
        let mut count = 0;
        for op in &ops[at..] {
            match op {
                Op::Rotate { slot, head_size, rope } if rotation.turned.len() < 2 => {
                    rotation.turned.push((*slot, *head_size, *rope));
                }
                Op::Store { keys, values, to } => {
                    rotation.store = Some((*keys, *values, *to));
                    count += 1;
                    break;
                }
                _ => break,
            }
            count += 1;
        }
        self.nodes.push(Node::Rotate(rotation));
        count
    }
}

/// The slot of a norm in place by RMS, its groups, epsilon and weights.
fn plain_norm(op: &Op) -> Option<(SlotId, usize, f32, WeightId)> {
    match *op {
        Op::Norm { kind: NormKind::Rms, input, group, epsilon, weight: Some(weight), bias: None, out } => {
            (input == out).then_some((input, group, epsilon, weight))
        }
        _ => None,
    }
}

/// The norms of queries and keys from `at` on, if what follows turns both alike, and stores the keys.
fn head_norm(ops: &[&Op], at: usize) -> Option<HeadNorm> {
    let [first, second, turns_queries, turns_keys, store] = ops.get(at..at + 5)? else { return None };
    let (queries, group, epsilon, query_weight) = plain_norm(first)?;
    let (keys, key_group, key_epsilon, key_weight) = plain_norm(second)?;
    let (Op::Rotate { slot: a, head_size, rope }, Op::Rotate { slot: b, head_size: key_size, rope: key_rope }) =
        (turns_queries, turns_keys)
    else {
        return None;
    };
    let Op::Store { keys: stored, .. } = store else { return None };
    let is_alike = (group, epsilon, head_size, rope) == (key_group, key_epsilon, key_size, key_rope);
    let is_one = (*a, *b, *stored) == (queries, keys, keys) && group == *head_size;
    (is_alike && is_one).then_some(HeadNorm { queries: query_weight, keys: key_weight, epsilon })
}

/// Slots that hold a part of another's rows as it is, and are written by nothing else: with that other, and where the part
/// begins. Nothing of that other is written any more behind the copy, so the part can lie within it.
fn slices(program: &Program) -> HashMap<SlotId, (SlotId, usize)> {
    let last_written =
        |slot: SlotId| program.steps.iter().rposition(|step| step.op.writes().contains(&slot)).unwrap_or(usize::MAX);
    let mut found = HashMap::new();
    for (at, step) in program.steps.iter().enumerate() {
        let Op::Copy { parts, out } = &step.op else { continue };
        let is_whole = |part: &Runs| part.count == 1 && part.size == program.slots[out.0].width;
        if let [part] = &parts[..]
            && is_whole(part)
            && last_written(*out) == at
            && last_written(part.from) < at
            && !found.contains_key(&part.from)
            && !program.steps[..at].iter().any(|step| step.op.writes().contains(out))
        {
            found.insert(*out, (part.from, part.from_start));
        }
    }
    found
}

/// Where slots lie: what is sliced within what it is sliced of, and the outputs of one linear step side by side, if all steps that write any of them write the same.
fn place(program: &Program) -> (Vec<View>, Vec<(u32, Rows)>) {
    let mut lists: HashMap<SlotId, Option<Vec<SlotId>>> = HashMap::new();
    for step in &program.steps {
        let Op::Linear { products, .. } = &step.op else { continue };
        let outs: Vec<SlotId> = products.iter().map(|product| product.out).collect();
        let aligned = outs.iter().all(|slot| program.slots[slot.0].width.is_multiple_of(4));
        for &slot in &outs {
            let list = (aligned && outs.len() > 1).then(|| outs.clone());
            lists
                .entry(slot)
                .and_modify(|known| *known = known.take().filter(|known| Some(known) == list.as_ref()))
                .or_insert(list);
        }
    }
    // A gated unit reads one slot and writes another, which no kernel may do to one buffer.
    for step in &program.steps {
        if let Op::Gate { gate, up, out, .. } = &step.op {
            for slot in [gate, up, out] {
                lists.insert(*slot, None);
            }
        }
    }
    let slices = slices(program);
    let mut views: Vec<Option<View>> = vec![None; program.slots.len()];
    let mut buffers = vec![];
    for (id, slot) in program.slots.iter().enumerate() {
        if views[id].is_some() || slices.contains_key(&SlotId(id)) {
            continue;
        }
        let list = lists.get(&SlotId(id)).cloned().flatten();
        // All of the list must agree, or none lies beside another.
        let list = list.filter(|list| list.iter().all(|slot| lists.get(slot) == Some(&Some(list.clone()))));
        let together = list.unwrap_or(vec![SlotId(id)]);
        let stride: usize = together.iter().map(|slot| program.slots[slot.0].width).sum();
        let stride = stride.next_multiple_of(4) as u32;
        let mut start = 0;
        for member in together {
            views[member.0] = Some(View { buffer: buffers.len(), start, stride });
            start += program.slots[member.0].width as u32;
        }
        buffers.push((stride, slot.rows));
    }
    for (out, (from, first)) in slices {
        views[out.0] = views[from.0].map(|view| View { start: view.start + first as u32, ..view });
    }
    (views.into_iter().flatten().collect(), buffers)
}
