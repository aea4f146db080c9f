"""Asks all queries, prints the verdicts as a table, and fails if one is not as expected.

Two theorem provers of Debian can be asked: E (the default), and SPASS.
"""

import argparse
import concurrent.futures
import os
import subprocess
import sys
import tempfile
import time

from queries import queries

MEMORY_MIB = 2000


def e_prover(path, selection, seconds):
    return [
        "eprover", "--silent", "--term-ordering=KBO6", f"--literal-selection-strategy={selection}",
        f"--memory-limit={MEMORY_MIB}", f"--cpu-limit={seconds}", path,
    ]  # fmt: skip


def spass(path, seconds):
    # In bytes, of which it takes fewer than 2^31.
    memory = MEMORY_MIB * 1_000_000
    return [
        # It would take facts of one term for sorts, which swell.
        "SPASS", "-TPTP", "-Sorts=0", "-PProblem=0",
        f"-Memory={memory}", f"-TimeLimit={seconds}", path,
    ]  # fmt: skip


def attempts(prover, path, seconds):
    """The first attempt that comes to an end decides: each is complete."""
    if prover == "spass":
        return [spass(path, seconds)]
    # Two ways to choose what E resolves on. The first one ends within a second or never.
    quick, steady = "SelectMaxLComplexAvoidPosPred", "SelectNewComplexAHP"
    return [e_prover(path, quick, 1), e_prover(path, steady, seconds)]


# True: all that can be derived has been, and the attack is not in it.
VERDICTS = {
    "# SZS status Satisfiable": True,
    "# SZS status Unsatisfiable": False,
    "SPASS beiseite: Completion found.": True,
    "SPASS beiseite: Proof found.": False,
}


def ask(query, prover, seconds):
    """The verdict (None: the prover came to no end), and the seconds it took."""
    start = time.monotonic()
    found = []
    with tempfile.NamedTemporaryFile("w", suffix=".p") as problem:
        problem.write(query.problem())
        problem.flush()
        for command in attempts(prover, problem.name, seconds):
            output = subprocess.run(command, capture_output=True, text=True).stdout
            found = [VERDICTS[line] for line in output.splitlines() if line in VERDICTS]
            if found:
                break
    return (found[0] if found else None), time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prover", choices=("e", "spass"), default="e")
    parser.add_argument("--seconds", type=int, default=60, help="for each query")
    parser.add_argument("--only", default="", help="queries whose names have this text")
    parser.add_argument("--print", action="store_true", help="print the problems instead")
    options = parser.parse_args()

    asked = [
        (kex, query)
        for kex in ("classical", "hybrid")
        for query in queries(kex)
        if options.only in query.name
    ]
    if options.print:
        for kex, query in asked:
            print(f"% {kex}: {query.name}\n{query.problem()}")
        return 0
    wrong = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = pool.map(lambda item: ask(item[1], options.prover, options.seconds), asked)
        for (kex, query), (found, seconds) in zip(asked, verdicts, strict=True):
            text = {True: "true", False: "false", None: "no end"}
            good = found == query.expected
            wrong += not good
            line = f"{text[found]} (expected {text[query.expected]})"
            mark = "" if good else "  WRONG"
            print(f"{kex:9}  {query.name:78} {line:22} {seconds:4.1f} s{mark}", flush=True)
    print(f"{len(asked) - wrong} passed, {wrong} failed")
    return 1 if wrong or not asked else 0


if __name__ == "__main__":
    sys.exit(main())
