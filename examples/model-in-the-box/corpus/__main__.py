"""`python -m corpus --seed 1 --count 10`: conversations as JSON lines of [role, text] pairs."""

import argparse
import json

from . import texts

parser = argparse.ArgumentParser(description="Writes conversations as JSON lines, each a list of [role, text].")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--count", type=int, default=1000)
options = parser.parse_args()
for messages in texts(options.seed, options.count):
    print(json.dumps(messages))
