// What changes from step to step. A step is a batch of tokens of one sequence.
struct Step {
    tokens: u32,   // of the batch
    start: u32,    // positions before it
    outputs: u32,  // tokens whose logits are asked for
    unused: u32,
}
