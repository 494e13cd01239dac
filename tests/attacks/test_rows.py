# ruff: noqa: E501  (a row reads best as one)
"""The list of what a submission may try: each entry is tried by a test that is there, or says why no test here can."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from attacks.test_cells import ATTACKS, CLUMSY

TESTS = Path(__file__).parents[1]
A = "attacks/test_cells.py"

# what is tried -> attacks by their names, or tests as file::function
ROWS: dict[str, tuple[str, ...]] = {
    "taking assertions out of later cells, or rewriting them": ("hooks of a notebook", "test_rebuild.py::test_locked_cells"),
    "a false result over the kernel's channels": ("hooks of a notebook", "test_bridge.py::test_only_our_outputs_are_scored"),
    "patched library functions": ("patched comparisons", "global settings"),
    "an object that equals everything": ("an object that equals everything", "a class that gives itself out for a float"),
    "a tensor that lies": ("a tensor subclass that lies", "a property of a tensor", "a tensor without data", "a sparse tensor"),
    "NaN and infinity": ("NaN as a wildcard", "infinity as a wildcard"),
    "a thread that mends things in time": ("a thread that changes things later",),
    "results written to files": ("results written to files",),
    "code in a reply": ("test_wire.py::test_any_bytes", "test_player.py::test_failures"),
    "replies out of turn, and by others": ("frames on the socket", "frames in the call", "an earlier cell that writes frames", "test_sandbox.py::test_a_helper_does_not_speak"),
    "printed verdicts": ("printed verdicts",),
    "leaving early": ("sys.exit in the cell", "sys.exit in the call", "os._exit in the cell", "os._exit in the call"),
    "refusing everything": ("test_mutants.py::test_an_unrelated_error_has_no_name",),
    "two guesses": ("a second guess at a question", "a question answered by all"),
    "reading tests, solutions, other submissions": ("the course folder", "the tests in memory", "test_sandbox.py::test_submissions_do_not_meet"),
    "the reference as an installed package": ("the reference in a package",),
    "the reference out of the second try": ("the reference among the notes", "test_fairness.py::test_the_asked_reference_never_enters"),
    "the network, and the cloud's own addresses": ("the network",),
    "secrets of the environment": ("secrets in the environment",),
    "roles, points, ids, outputs, kernels, order": ("test_rebuild.py::test_only_sources_cross",),
    "missing, doubled, added cells": ("test_rebuild.py::test_missing", "test_rebuild.py::test_duplicated", "test_rebuild.py::test_extra_cells"),
    "broken files, archives, floods": ("test_rebuild.py::test_broken_files", "test_rebuild.py::test_floods", "test_rebuild.py::test_any_bytes"),
    "links, pipes, devices": ("test_rebuild.py::test_links_and_pipes",),
    "modules left where an import may find them": ("modules left for later",),
    "text that shows otherwise than it runs": ("test_rebuild.py::test_text_that_runs_backwards", "test_sandbox.py::test_readable"),
    "scripts in pages, formulas in tables": ("test_bridge.py::test_pages_are_inert", "test_written.py::test_pages_of_words_are_inert", "test_export.py::test_no_formula"),
    "shells and magics": ("a shell", "a shell line", "stray commands"),
    "loops": ("a loop in the cell", "a loop in the call", "signals ignored", f"{A}::test_who_loops_everywhere", "an error that says itself without end"),
    "crashes": ("a crash", "its own server", "signals to the first process"),
    "memory": ("a memory bomb", "shared memory of many", "memory that no process owns", "a queue of messages"),
    "processes": ("a fork bomb", "a daemon", "test_weaker.py::test_daemons_end", "test_sandbox.py::test_helpers_die"),
    "output and answers without end": ("a print flood", "a giant answer", "a deep answer", "an endless answer", "a giant error"),
    "a full disk": ("a million files",),
    "code that runs at the end": ("atexit and finalizers",),
    "what hurts who parses it": ("brackets without end", "test_rebuild.py::test_any_bytes", "test_similarity.py::test_any_text"),
    "patched clocks": ("a clock that stands still",),
    "another process's memory": ("the memory of its server", "test_sandbox.py::test_the_box_holds"),
    "calls that no filter knew": ("calls that are newer than the filter", "test_confine.py::test_what_the_filter_says"),
    "what reaches others without namespaces": ("test_confine.py::test_the_filter_of_one_who_is_alone", "test_weaker.py::test_refused"),
    "forbidden functions": ("test_trace.py::test_reviewed",),
    "copied answers": ("test_similarity.py::test_pairs",),
    "written inputs": ("changed inputs",),
    "a mistake that costs twice": ("test_fairness.py::test_a_mistake_costs_once",),
    "a file that changes while it is graded": ("test_fleet.py::test_a_file_that_changes_is_not_graded",),
    "a forged or old verdict": ("test_signing.py::test_a_signature_holds_for_what_was_signed",),
    "code in a checkpoint": ("a checkpoint with code in it", "a checkpoint beside the notebook"),
    "gradients by hand": ("a backward that lies", "a gradient that is set by hand", f"{A}::test_a_backward_by_hand"),
    "far corners of the kernel": ("far corners of the kernel", "a device, a privileged program", "limits raised"),
    "descriptors and forks past Python": ("a fork that Python does not see", "a descriptor handed on", "its own orphans' parent"),
    "a spoilt interpreter": ("no builtins", "no modules", "a hook on everything", "an alarm in the midst of a reply", "limits taken away"),
    "numbers and text that are none": ("numbers that JSON has not", "digits without end", "half of a character", "keys that look alike"),
    "files without end": ("test_sandbox.py::test_files_without_end",),
    "names that are one another's, or code": ("test_graders_command.py::test_ids_of_odd_names", "test_bridge.py::test_nbgrader_autograde"),
    "an inbox of pipes, sockets and holes": ("test_graders_command.py::test_what_is_no_file_in_the_inbox",),
    "a whole class with all of it": ("attacks/test_class.py::test_a_class",),
    # no test here: GPU memory of neighbours (the box shows no GPU), a hole in the kernel, another student's identity
    # (whoever collects the files knows whose they are)
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_each_is_tried(row: str) -> None:
    """The attacks and tests that an entry names are there."""
    for name in ROWS[row]:
        file, _, function = name.partition("::")
        if function:
            tree = ast.parse((TESTS / file).read_text())
            assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], name
        else:
            assert name in ATTACKS | CLUMSY, name
