"""Trains the model in the box: `python train.py --run DIR`, then `python train.py --run DIR --decay 600`.

The learning rate warms up and stays, so that training may stop, go on and be taken further at any time; the phase in
which it falls to nothing starts from any checkpoint and ends in the model. Text is generated as it is needed and never
repeats. Rows of a batch are conversations of about one length, each from position 0, as a chat has them: no row sees
another's text, and hardly any computation goes into padding.

The loss counts what the assistant says in full, and the rest for a tenth: users' texts are templates with random
contents, mostly beyond prediction, but a model that has seen how they go on reads them better. Numbers that the assistant
says count three times, since an answer to a sum hangs on one token.
"""

import argparse
import csv
import os
import random
import signal
import time

import torch
import torch.nn.functional as F

from bpe import END_OF_TEXT, Tokenizer, learn
from corpus import texts
from corpus.numbers import NAMES
from model import Config, Model

BLOCK_CONVERSATIONS = 1024
OTHERS_WEIGHT, NUMBERS_WEIGHT = 0.1, 3.0


def batches(tokenizer, cfg, seed, block, batch_tokens):
    """One block of the corpus as (inputs, targets, weights), in an order that the seed and the block number fix."""
    rows = []
    for messages in texts(seed * 1_000_003 + block, BLOCK_CONVERSATIONS):
        ids, own = tokenizer.chat(messages)
        rows.append((ids[: cfg.context + 1], own[: cfg.context + 1]))
    rows.sort(key=lambda row: len(row[0]))
    names = [str(number) for number in range(21)] + NAMES
    numbers = torch.tensor([at for at in range(cfg.vocab) if tokenizer.decode([at]).strip().lower() in names])
    cut = []
    while rows:
        count = max(1, batch_tokens // len(rows[-1][0]))
        cut.append(rows[-count:])
        del rows[-count:]
    random.Random(block).shuffle(cut)
    for batch in cut:
        longest = max(len(ids) for ids, _ in batch)
        ids = torch.full((len(batch), longest), END_OF_TEXT)
        weights = torch.zeros(len(batch), longest)
        for at, (row, own) in enumerate(batch):
            ids[at, : len(row)] = torch.tensor(row)
            own_weights = torch.where(torch.isin(ids[at, : len(row)], numbers), NUMBERS_WEIGHT, 1.0)
            weights[at, : len(row)] = torch.where(torch.tensor(own), own_weights, OTHERS_WEIGHT)
        yield ids[:, :-1], ids[:, 1:], weights[:, 1:]


def losses(model, batch):
    """The weighted loss to train on, and the plain loss on the assistant's tokens."""
    inputs, targets, weights = batch
    each = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="none")
    weights = weights.flatten()
    own = weights >= 1.0
    return (each * weights).sum() / weights.sum(), (each * own).sum().detach() / own.sum().clamp(min=1)


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal, for the matrices of the layers."""

    def __init__(self, matrices, lr, momentum=0.95, decay=0.05):
        super().__init__(matrices, dict(lr=lr, momentum=momentum, decay=decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for matrix in group["params"]:
                speed = self.state[matrix].setdefault("speed", torch.zeros_like(matrix))
                speed.lerp_(matrix.grad, 1 - group["momentum"])
                step = orthogonal(matrix.grad.lerp(speed, group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["decay"])
                matrix.add_(step, alpha=-group["lr"] * max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5)


def orthogonal(matrix):
    """Close to the orthogonal matrix nearest to this one, by five steps of a quintic iteration."""
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


def optimizers(model, rate, muon):
    """AdamW for embeddings and norms, and Muon (or AdamW too) for matrices."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and not name.startswith("embed")]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [dict(params=[model.embed.weight], weight_decay=0.01), dict(params=vectors, weight_decay=0.0)]
    if not muon:
        groups.append(dict(params=matrices, weight_decay=0.1))
    adam = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.97), fused=True)
    return [adam, Muon(matrices, 0.02)] if muon else [adam]


def vocabulary(run, seed, size):
    """The run's vocabulary: the one in this folder, or without it one learned from a sample of the corpus."""
    path = os.path.join(run, "merges.json")
    if not os.path.exists(path):
        ours = os.path.join(os.path.dirname(os.path.abspath(__file__)), "merges.json")
        sample = (text for messages in texts(seed, 30_000) for _, text in messages)
        tokenizer = Tokenizer.load(ours) if os.path.exists(ours) else Tokenizer(learn(sample, size))
        tokenizer.save(path)
    return Tokenizer.load(path)


class Threads:
    """How many threads to use: all, or one fewer for each core that others keep busy (Linux; elsewhere always all).

    Threads wait for each other many times in a step, so two of them on one core and a half are slower than one alone.
    This process runs at a positive niceness, whose time the system counts apart from that of others.
    """

    def __init__(self, count):
        self.count, self.seen, self.looked = count, self.busy(), time.time()
        torch.set_num_threads(count)

    def busy(self):
        try:
            with open("/proc/stat") as file:
                fields = file.readline().split()
            return (int(fields[1]) + int(fields[3])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            return 0.0

    def adapt(self):
        now = time.time()
        if now - self.looked < 4:
            return
        busy = self.busy()
        others = (busy - self.seen) / (now - self.looked)
        self.seen, self.looked = busy, now
        torch.set_num_threads(max(1, self.count - round(others + 0.25)))


class Run:
    """A training run in a folder: its checkpoints, its log, and where it is."""

    def __init__(self, options):
        self.options, self.stopping = options, False
        torch.manual_seed(options.seed)
        self.threads = Threads(options.threads)
        os.makedirs(options.run, exist_ok=True)
        self.tokenizer = vocabulary(options.run, options.seed, Config.vocab)
        self.model = Model(Config())
        self.optimizers = optimizers(self.model, options.rate, not options.adam)
        self.rates = [o.param_groups[0]["lr"] for o in self.optimizers]
        self.place = dict(step=0, tokens=0, seconds=0.0, block=0, batch=0, falls_from=None, falls_steps=0)
        falling = self.path("decay.pt")
        start = falling if options.decay and os.path.exists(falling) else options.start or self.path("last.pt")
        if os.path.exists(start):
            self.load(start)
        if options.decay and self.place["falls_from"] is None:
            self.place.update(falls_from=self.place["step"], falls_steps=options.decay)

    def path(self, name):
        return os.path.join(self.options.run, name)

    def load(self, path):
        saved = torch.load(path, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        self.place = saved["place"]
        print("goes on from", path, self.place, flush=True)

    def save(self):
        name = self.path("last.pt" if self.place["falls_from"] is None else "decay.pt")
        state = dict(model=self.model.state_dict(), optimizers=[o.state_dict() for o in self.optimizers], place=self.place)
        torch.save(state, name + ".new")
        os.replace(name + ".new", name)

    def set_rate(self):
        step, place = self.place["step"], self.place
        factor = min(1.0, (step + 1) / self.options.warmup)
        if place["falls_from"] is not None:
            factor *= max(0.02, 1 - (step - place["falls_from"]) / place["falls_steps"])
        for optimizer, rate in zip(self.optimizers, self.rates):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        return factor

    def batch_stream(self):
        """Batches from where the run is. A block that a stop cut is generated again, and its first batches skipped."""
        while True:
            block = batches(self.tokenizer, self.model.cfg, self.options.seed, self.place["block"], self.options.batch)
            for at, batch in enumerate(block):
                if at >= self.place["batch"]:
                    self.place["batch"] = at + 1
                    yield batch
            self.place.update(block=self.place["block"] + 1, batch=0)

    def stop(self, *_):
        """Asked to end: after the step in hand, with a checkpoint."""
        self.stopping = True

    def finished(self):
        place = self.place
        if self.stopping:
            return True
        if place["falls_from"] is not None:
            return place["step"] >= place["falls_from"] + place["falls_steps"]
        return self.options.steps and place["step"] >= self.options.steps

    def train(self):
        place, saved_at, shown = self.place, time.time(), []
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)
        mark = place["tokens"], time.time()
        log = open(self.path("loss.csv"), "a", newline="")
        for batch in self.batch_stream():
            if self.finished():
                break
            self.threads.adapt()
            began, factor = time.time(), self.set_rate()
            loss, own = losses(self.model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            place["step"] += 1
            place["tokens"] += batch[0].numel()
            place["seconds"] += time.time() - began
            shown.append((loss.item(), own.item()))
            if place["step"] % 20 == 0:
                means = [sum(column) / len(shown) for column in zip(*shown)]
                speed = (place["tokens"] - mark[0]) / (time.time() - mark[1])
                mark = place["tokens"], time.time()
                csv.writer(log).writerow([place["step"], place["tokens"], round(place["seconds"]), *(f"{m:.4f}" for m in means), f"{factor:.3f}"])
                log.flush()
                print(f"step {place['step']}  tokens {place['tokens']:,}  loss {means[0]:.4f}  assistant {means[1]:.4f}  "
                      f"{speed:.0f} tok/s on {torch.get_num_threads()}", flush=True)
                shown = []
            if time.time() - saved_at > 120:
                self.save()
                saved_at = time.time()
        self.save()


def main():
    parser = argparse.ArgumentParser(description="Trains the model in the box. Stopped at any time, it goes on from its last checkpoint.")
    parser.add_argument("--run", required=True, help="folder of checkpoints and logs")
    parser.add_argument("--decay", type=int, default=0, help="let the learning rate fall to nothing within this many steps, from the last checkpoint")
    parser.add_argument("--start", help="another checkpoint to start from")
    parser.add_argument("--steps", type=int, default=0, help="stop at this step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4096, help="tokens in a batch")
    parser.add_argument("--rate", type=float, default=3e-3, help="AdamW's learning rate")
    parser.add_argument("--warmup", type=int, default=100, help="steps")
    parser.add_argument("--adam", action="store_true", help="AdamW for everything")
    parser.add_argument("--threads", type=int, default=2)
    Run(parser.parse_args()).train()


if __name__ == "__main__":
    main()
