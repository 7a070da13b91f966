# SPDX-License-Identifier: MIT
"""Fuzzing: mutated files and messages at the entry points that users reach. `python -m fuzz`, or `make fuzz`.

Each input runs in a forked child with limits, an audit hook and canaries around it (`sandbox`). What must hold is the
same for all kinds: a documented exit code or an error of ours, no traceback, at most 10 s of processor time and 2 GB of
memory, no file touched outside the output folder, no process, no connection.

Inputs are drawn by `random.Random`, one seed for each, so that any input can be made again without those before it. Of
each symptom the input with the fewest edits is kept as a file.

Hypothesis and atheris were tried or looked at, and left out:

- Hypothesis varies what it has just drawn: of 60 inputs about 20 differed in what was edited. It stops at the first
  failure to shrink it, which a run over thousands of inputs cannot use, and it took as long as the input itself.
- atheris sees the coverage of Python alone, while most parsers behind these entry points are C, C++ and Rust. It runs
  all inputs in one process, which a crash, a hang or a memory that is used up ends.
"""
