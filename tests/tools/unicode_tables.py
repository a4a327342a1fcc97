#!/usr/bin/env python3
"""Writes src/tokenizer/unicode_tables.rs from the Unicode character database, version 15.1.

    pip install unicodedata2==15.1.0
    python3 tests/tools/unicode_tables.py > src/tokenizer/unicode_tables.rs

The version is part of the contract: tokenizers cut words by these categories, and llama.cpp's tables are those of 15.1.
Case mappings come from Python itself; no version since 14 has changed a lowercase mapping up to 15.1.
"""

import sys

import unicodedata2 as ucd

VERSION = "15.1.0"
END = 0x110000
# The order of `Category` in unicode.rs; a general category is named by its first letter, unassigned by both.
CATEGORIES = {"Cn": 0, "N": 1, "L": 2, "Z": 3, "M": 4, "P": 5, "S": 6, "C": 7}
WIDTH = 116


def category(cpt):
    general = ucd.category(chr(cpt))
    return CATEGORIES.get(general, CATEGORIES.get(general[0]))


def lower(cpt):
    """The simple mapping: U+0130 is the one code point whose full mapping is longer, and starts with it."""
    return ord(chr(cpt).lower()[0])


def nfd_first(cpt):
    return ord(ucd.normalize("NFD", chr(cpt))[0])


def category_runs():
    last = None
    for cpt in range(END):
        kind = category(cpt)
        if kind != last:
            yield cpt << 4 | kind
        last = kind


def lower_runs():
    """Greedy runs [first, count, stride, target] of mappings that all move by the same distance."""
    pairs = [(c, lower(c)) for c in range(END) if lower(c) != c]
    runs = []
    for cpt, to in pairs:
        if runs:
            first, count, stride, target = runs[-1]
            step = cpt - (first + (count - 1) * stride)
            if cpt - first == to - target and step <= 2 and (count == 1 or step == stride):
                runs[-1] = [first, count + 1, step, target]
                continue
        runs.append([cpt, 1, 1, to])
    return runs


def nfd_tables():
    """Runs [first, last, target] that share one target, and lists (first, targets) of neighbours that do not."""
    runs, lists = [], []
    for cpt in range(END):
        to = nfd_first(cpt)
        if to == cpt:
            continue
        if runs and runs[-1][1] == cpt - 1 and runs[-1][2] == to:
            runs[-1][1] = cpt
        else:
            runs.append([cpt, cpt, to])
    shared = [run for run in runs if run[0] != run[1]]
    for first, last, to in runs:
        if first != last:
            continue
        if lists and lists[-1][0] + len(lists[-1][1]) == first:
            lists[-1][1].append(to)
        else:
            lists.append((first, [to]))
    return shared, lists


def wrap(items):
    line = "   "
    for item in items:
        if len(line) + 1 + len(item) > WIDTH:
            print(line)
            line = "   "
        line += " " + item
    print(line)


def table(doc, name, kind, items):
    print(f"\n/// {doc}\n#[rustfmt::skip]\npub(super) const {name}: &[{kind}] = &[")
    wrap(items)
    print("];")


def main():
    if ucd.unidata_version != VERSION:
        sys.exit(f"unicodedata2 holds Unicode {ucd.unidata_version}, expected {VERSION}")
    shared, lists = nfd_tables()
    print(f"//! Unicode {VERSION} as runs of code points, written by `tests/tools/unicode_tables.py`: do not edit.")
    table("Runs of one category: the first code point, and in the last hexadecimal digit the `Category`.",
          "CATEGORY_RUNS", "u32", (f"{run:#x}," for run in category_runs()))
    table("Simple lowercase mappings: `[first, count, stride, target of the first]`.",
          "LOWER_RUNS", "[u32; 4]", ("[%#x, %d, %d, %#x]," % tuple(run) for run in lower_runs()))
    table("First code point of the canonical decomposition, where neighbours share it: `[first, last, target]`.",
          "NFD_RUNS", "[u32; 3]", ("[%#x, %#x, %#x]," % tuple(run) for run in shared))
    table("The same where they do not: the first code point, then the targets of it and those that follow.",
          "NFD_LISTS", "(u32, &[u32])",
          (word for first, to in lists for word in list_words(first, to)))


def list_words(first, targets):
    """One list, cut where a line may break."""
    words = [f"{target:#x}," for target in targets]
    words[0] = f"({first:#x}, &[{words[0]}"
    words[-1] = words[-1].rstrip(",") + "]),"
    return words


main()
