"""Asks the model the questions of `questions.json` and counts by keyword: `python check.py --run DIR [--failures]`.

Answers are greedy. What was said before a question is said first, and the model's own replies to it stay in the talk.
"""

import argparse
import collections
import json
import pathlib
import re

import torch

from bpe import END
from export import load

HERE = pathlib.Path(__file__).resolve().parent
MOST_TOKENS = 200


@torch.no_grad()
def reply(model, tokenizer, messages):
    """The greedy answer, and whether it ended by itself."""
    ids, _ = tokenizer.chat(messages, reply=True)
    start = len(ids)
    while len(ids) < min(start + MOST_TOKENS, model.cfg.context):
        token = model(torch.tensor([ids]))[0, -1].argmax().item()
        if token == END:
            return tokenizer.decode(ids[start:]), True
        ids.append(token)
    return tokenizer.decode(ids[start:]), False


def right(answer, question):
    """Whether enough of the keywords are in the answer, as whole words."""
    text = answer.lower()
    found = [word for word in question["any"] if re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])", text)]
    return len(found) >= question.get("need", 1)


def main():
    parser = argparse.ArgumentParser(description="Asks the test's questions.")
    parser.add_argument("--run", required=True)
    parser.add_argument("--failures", action="store_true", help="show failures only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--questions", default=str(HERE / "questions.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, tokenizer, place = load(options.run)
    with open(options.questions) as file:
        questions = json.load(file)
    score, asked, ended = collections.Counter(), collections.Counter(), 0
    for question in questions:
        messages = []
        for said in [*question.get("earlier", []), question["question"]]:
            messages.append(("user", said))
            answer, stopped = reply(model, tokenizer, messages)
            messages.append(("assistant", answer))
        good = right(answer, question)
        asked[question["kind"]] += 1
        score[question["kind"]] += good
        ended += stopped
        if not (good and options.failures):
            print("right" if good else "WRONG", "|", question["question"], "->", answer, "" if stopped else "[did not stop]")
    print(f"step {place['step']}, {place['tokens']:,} tokens:", ", ".join(f"{kind} {score[kind]}/{asked[kind]}" for kind in asked))
    print(f"{sum(score.values())} of {len(questions)} right, {ended} stopped by themselves")


if __name__ == "__main__":
    main()
