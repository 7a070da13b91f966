# SPDX-License-Identifier: MIT
"""Fuzzing: mutated files and messages at the entry points that users reach. `python -m fuzz`, or `make fuzz`.

Each input runs in a forked child with limits, an audit hook and canaries around it (`sandbox`). What must hold is the
same for all kinds: a documented exit code or an error of ours, no traceback, at most 10 s of processor time and 2 GB of
memory, no file touched outside the output folder, no process, no connection.

Hypothesis draws the inputs. Its texts, floats and integers reach for odd values, and a seed repeats a run. It is not
asked to shrink: a run goes on after a finding, and of each symptom the input with the fewest edits is kept as a file.
atheris was left out: it sees coverage of Python alone, while most parsers behind these entry points are C, C++ and
Rust; and it runs all inputs in one process, which a crash, a hang or a used-up memory ends.
"""
