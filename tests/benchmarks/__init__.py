"""Benchmarks: tinytrans and its peers side by side in one run -> a table and a JSON; `python -m tests.benchmarks`."""
