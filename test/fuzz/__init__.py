# SPDX-License-Identifier: MIT
"""Fuzzing of every entry point that takes files, messages or requests: `make fuzz`.

Each input runs in a forked child with limits, an audit hook and canary files around it. These
conditions must hold for every input (see `sandbox`):

- the exit code is documented, or the error is one of ours; there is no traceback and no crash;
- at most 10 s of CPU time and 2 GB of memory are used;
- no file outside the output folder is touched;
- no process is started, and no connection is made.

Inputs are mutations of a small seed corpus, of bytes and of structure. `random.Random` draws them,
with a seed for each input, so that any input can be generated without those before it. The input
with the fewest edits is kept for each symptom.

Hypothesis and atheris were considered and left out:

- Hypothesis varies what it has just drawn: of 60 inputs about 20 differed in their edits. It stops
  at the first failure to shrink it, and drawing took as long as running the input.
- atheris sees the coverage of Python alone, but most parsers here are C, C++ and Rust. It runs all
  inputs in one process, which a crash, a hang or an exhausted memory ends.
"""
