//! A step that chooses on the device: what it begins with, what is wanted of it, and what it gives.

use super::gpu::Ticket;
use bytemuck::{Pod, Zeroable};

/// What a step begins with.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// These tokens.
    Tokens(&'a [u32]),
    /// The one that the device guessed behind another step, which the sequence is to hold when that is known to be right.
    Guess(&'a Ticket),
}

/// What is wanted of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    /// So many of the likeliest tokens, at most `GpuExecutor::most_candidates`.
    pub candidates: u32,
    /// How to draw one of them; without it the guess is the likeliest.
    pub draw: Option<Draw>,
}

/// What a step gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The likeliest tokens, the likeliest first.
    pub tokens: Vec<u32>,
    /// Their logits.
    pub logits: Vec<f32>,
    /// The one that the device would take.
    pub guess: u32,
}

/// What is drawn by, as `draw.wgsl` has it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct Draw {
    /// How many of the likeliest candidates count.
    pub keep: u32,
    /// What logits are divided by; above 0.
    pub temperature: f32,
    /// The likeliest that hold so much stay.
    pub top_p: f32,
    /// And those at least so likely, compared with the likeliest.
    pub min_p: f32,
    /// A number from 0 to 1.
    pub uniform: f32,
}
