//! A program in words: a line for each step.

use super::{Op, Program, Reach, Rope, Routing, RowOf, Runs, Scan, SlotId, Step, WeightId};
use std::fmt;

impl Program {
    fn slot(&self, id: SlotId) -> &str {
        self.slots.get(id.0).map_or("?", |slot| slot.name)
    }

    fn weight(&self, id: WeightId) -> &str {
        self.weights.get(id.0).map_or("?", |weight| &weight.name)
    }

    /// The op as one line of a listing.
    fn describe(&self, op: &Op, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (slot, weight) = (|id: &SlotId| self.slot(*id), |id: &WeightId| self.weight(*id));
        match op {
            Op::Embed { table, out } => write!(f, "embed     {} = {}[token]", slot(out), weight(table)),
            Op::AddRow { table, row, to } => {
                let row = if *row == RowOf::Position { "position" } else { "0" };
                write!(f, "add row   {} += {}[{row}]", slot(to), weight(table))
            }
            Op::Select { input, out } => write!(f, "select    {} = rows of {} with outputs", slot(out), slot(input)),
            Op::Norm { kind, input, group, weight: by, bias, out, .. } => {
                let kind = format!("{kind:?}").to_lowercase();
                write!(f, "norm      {} = {kind}({}", slot(out), slot(input))?;
                if self.slots.get(input.0).is_some_and(|slot| slot.width != *group) {
                    write!(f, ", groups of {group}")?;
                }
                write!(f, ")")?;
                by.iter().try_for_each(|by| write!(f, " * {}", weight(by)))?;
                bias.iter().try_for_each(|bias| write!(f, " + {}", weight(bias)))
            }
            Op::Linear { input, products } | Op::Experts { input, products, .. } => {
                let is_mixture = matches!(op, Op::Experts { .. });
                write!(f, "{}", if is_mixture { "experts   " } else { "linear    " })?;
                for (i, product) in products.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{} = {}", slot(&product.out), weight(&product.weight))?;
                    let rows = self.slots.get(product.out.0).map_or(0, |slot| slot.width);
                    if !is_mixture && self.weights.get(product.weight.0).is_some_and(|weight| weight.rows != rows) {
                        write!(f, "[{}..{}]", product.first_row, product.first_row + rows)?;
                    }
                    write!(f, " · {}", slot(input))?;
                    product.bias.iter().try_for_each(|bias| write!(f, " + {}", weight(bias)))?;
                }
                Ok(())
            }
            Op::Rotate { slot: turned, rope, .. } => {
                let Some(rope) = self.ropes.get(rope.0) else { return write!(f, "rotate    {}", slot(turned)) };
                let Rope { dimensions, base, style, .. } = rope;
                let style = format!("{style:?}").to_lowercase();
                write!(f, "rotate    {} ({style}, {dimensions} dimensions, base {base})", slot(turned))
            }
            Op::Store { keys, values, to } => {
                write!(f, "store     {}", slot(keys))?;
                values.iter().try_for_each(|values| write!(f, ", {}", slot(values)))?;
                write!(f, " in cache {}", to.0)
            }
            Op::Attend { queries, over, heads, scale, softcap, sinks, out } => {
                write!(f, "attend    {} = {} over cache {} ({heads} heads, ", slot(out), slot(queries), over.0)?;
                write!(f, "scale {scale}")?;
                sinks.iter().try_for_each(|sinks| write!(f, ", sinks {}", weight(sinks)))?;
                softcap.iter().try_for_each(|cap| write!(f, ", softcap {cap}"))?;
                match self.key_values.get(over.0).map_or(Reach::All, |cache| cache.reach) {
                    Reach::All => write!(f, ")"),
                    Reach::Window(positions) => write!(f, ", window {positions})"),
                    Reach::Chunk(positions) => write!(f, ", chunks of {positions})"),
                }
            }
            Op::AttendTexts { queries, keys, values, heads, sees, scale, softcap, most_bias, out } => {
                let sees = format!("{sees:?}").to_lowercase();
                write!(f, "attend    {} = {} over {}, {} ", slot(out), slot(queries), slot(keys), slot(values))?;
                write!(f, "({heads} heads, scale {scale}, sees {sees}")?;
                softcap.iter().try_for_each(|cap| write!(f, ", softcap {cap}"))?;
                most_bias.iter().try_for_each(|bias| write!(f, ", bias up to {bias}"))?;
                write!(f, ")")
            }
            Op::Gate { activation, gate, up, out } => {
                let activation = format!("{activation:?}").to_lowercase();
                write!(f, "gate      {} = {activation}({}) * {}", slot(out), slot(gate), slot(up))
            }
            Op::Activate { activation, slot: curved } => {
                let activation = format!("{activation:?}").to_lowercase();
                write!(f, "activate  {0} = {activation}({0})", slot(curved))
            }
            Op::Temper { slot: tempered, slope, interval, .. } => {
                write!(f, "temper    {} (slope {slope}, each {interval} positions)", slot(tempered))
            }
            Op::Route { logits, routing, out } => {
                let Routing { gating, groups, used_groups, used, bias, scales, .. } = routing;
                let gating = format!("{gating:?}").to_lowercase();
                write!(f, "route     {} = {used} best of {gating}({})", slot(out), slot(logits))?;
                bias.iter().try_for_each(|bias| write!(f, " + {}", weight(bias)))?;
                scales.iter().try_for_each(|scales| write!(f, ", times {}", weight(scales)))?;
                if *groups > 1 {
                    write!(f, ", from {used_groups} of {groups} groups")?;
                }
                Ok(())
            }
            Op::Convolve { input, over, weight: by, bias, out } => {
                write!(f, "convolve  {} = {} and state {} * {}", slot(out), slot(input), over.0, weight(by))?;
                bias.iter().try_for_each(|bias| write!(f, " + {}", weight(bias)))
            }
            Op::Scan(scan) => {
                let Scan { input, steps, step_bias, decay, writes, skip, over, out, .. } = scan;
                write!(f, "scan      {} = {} over state {}, ", slot(out), slot(input), over.0)?;
                write!(f, "fades by {} + {}, {}", slot(steps), weight(step_bias), weight(decay))?;
                writes.iter().try_for_each(|writes| write!(f, ", writes {}", slot(writes)))?;
                skip.iter().try_for_each(|skip| write!(f, ", skips {}", weight(skip)))
            }
            Op::Mix { parts, routes, out } => {
                write!(f, "mix       {} = {} by {}", slot(out), slot(parts), slot(routes))
            }
            Op::Copy { parts, out } => {
                write!(f, "copy      {} = ", slot(out))?;
                parts.iter().enumerate().try_for_each(|(i, Runs { from, from_start, size, count, .. })| {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{count} of {}[{from_start}..{}]", slot(from), from_start + size)
                })
            }
            Op::Add { from, to } => write!(f, "add       {} += {}", slot(to), slot(from)),
            Op::Scale { slot: scaled, factor } => write!(f, "scale     {} *= {factor}", slot(scaled)),
            Op::Softcap { slot: capped, cap } => write!(f, "softcap   {0} = {cap} tanh({0} / {cap})", slot(capped)),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Program { architecture, layers, vocabulary, context, .. } = self;
        writeln!(f, "{architecture}: {layers} layers, vocabulary {vocabulary}, context {context}")?;
        for Step { layer, op } in &self.steps {
            match layer {
                Some(layer) => write!(f, "layer {layer:<5}")?,
                None => write!(f, "{:11}", "")?,
            }
            self.describe(op, f)?;
            writeln!(f)?;
        }
        Ok(())
    }
}
