#!/usr/bin/env python3
"""Runs other systems for encrypted inference beside Cloister, on the same tasks, and prints the ratios of one run.

    python3 tests/peers/compare.py --peers DIR [--tenseal PYTHON] [--concrete PYTHON] [--openfhe PYTHON]
                                   [--pyfhel PYTHON] [--measure PROGRAM] [--out FILE.json] [--markdown]

DIR has the scripts that run the others: make_tasks.py, tenseal_lr.py, cml_bench.py, openfhe_lr.py, pyfhel_seed.py.
Each PYTHON is an interpreter that can import that system, numpy and scikit-learn; systems without one are left out.
Cloister is measured by `cargo measure`, or by a built PROGRAM, before and after the others; the faster counts.
Everything runs on one thread, on processor 1 if there is `taskset`, but for the service, which is several processes.

Trees and networks are a table of their own: of Concrete ML's script a row of the same kind of model, with the same
hyper-parameters and 6 bits (networks: 3), trained on the same rows; accuracies are those on the rows that are held out.

Of Cloister's figures for a task and a number of rows, the one is taken that is fastest and no less exact than the
other system, or else the most exact. --markdown prints one row per task, number of rows and system: of several modes
of a system the fastest whose labels are all equal to scikit-learn's, or else the fastest.

Standard library only, Python 3.10, Linux. The exit status is 1 if a script failed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

TASKS = ["iris", "bc", "digits", "synth784"]

# Cloister's figures for a task and a number of rows. Pyfhel's batch is the published example's, of 140 rows.
OURS = {
    ("iris", 1): ["iris-1", "iris-1-fine"],
    ("iris", 140): ["iris-150", "iris-exact"],
    ("iris", 150): ["iris-150", "iris-exact"],
    ("bc", 1): ["bc-1", "bc-1-fine"],
    ("bc", 143): ["bc-143"],
    ("digits", 1): ["digits-1"],
    ("digits", 360): ["digits-360"],
    ("synth784", 1): ["wide784-1"],
    ("synth784", 500): ["wide784-500"],
}

# Models that choose: what Concrete ML's script is to train, and Cloister's figures.
CHOOSERS = {
    "iris-dt": ("iris dt 6", "trees/iris-dt"),
    "iris-xgb": ("iris xgb 6", "trees/iris-xgb"),
    "bc-rf": ("bc rf 6", "trees/bc-rf"),
    "bc-xgb": ("bc xgb 6", "trees/bc-xgb"),
    "digits-xgb": ("digits xgb 6", "trees/digits-xgb"),
    "iris-nn": ("iris nn 3", "network/iris-16"),
}

# Rows that Concrete ML evaluates, one by one; the fastest counts. Of models that choose each takes seconds.
CONCRETE_ROWS = 10
CONCRETE_CHOOSER_ROWS = 2

# For so few levels OpenFHE is fastest with BV key switching, and its keys and requests are smallest.
OPENFHE_KEYS = {"KS": "BV", "DS": "10"}

# What is compared: name in a row's data, title, and how a value is written.
COMPARED = ["server_us", "client_us", "request_bytes", "reply_bytes", "key_bytes"]
TITLES = ["task", "rows", "system", "server", "client", "request", "reply", "keys"]
LINEAR_TITLES = [*TITLES, "max logit error", "labels equal"]
CHOOSER_TITLES = [*TITLES, "accuracy in float", "encrypted"]

NOTES = """\
Each cell: the other system / Cloister (ratio). Server: from request bytes to reply bytes, Cloister's with
re-randomisation. Client: encrypt and decrypt. Times of the other systems are CPU seconds, the minimum of a few
repetitions; Cloister's are medians of wall time on one thread. Keys are what the server needs once per client; for
Cloister that is a public key."""


def main():
    options = parse_arguments()
    runs = planned_runs(options)
    if not runs:
        sys.exit("error: no interpreter given, so there is nothing to compare with (--help)")
    with tempfile.TemporaryDirectory() as folder:
        before = measure(options)
        results, errors = run_all(options, runs, folder)
        after = measure(options)
    errors += [error for _, error in (before, after) if error]
    figures = merge(before[0], after[0])
    rows = [compare(row, figures) for row in sorted(results, key=place)]
    report = {"machine": machine(), "load": os.getloadavg(), "rows": rows, "figures": figures, "errors": errors}
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    print_markdown(report) if options.markdown else print_text(report)
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    sys.exit(1 if errors else 0)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True, metavar="DIR")
    for system in SYSTEMS:
        parser.add_argument(f"--{system}", metavar="PYTHON")
    parser.add_argument("--measure", type=Path, metavar="PROGRAM")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    parser.add_argument("--markdown", action="store_true")
    return parser.parse_args()


# Running


def planned_runs(options):
    """Of every system that has an interpreter: (interpreter, script and arguments, reader of its output)."""
    given = [(getattr(options, name), *system) for name, system in SYSTEMS.items() if getattr(options, name)]
    return [(python, command.split(), read) for python, commands, read in given for command in commands]


def run_all(options, runs, folder):
    """The rows that the scripts gave, and an error for each that failed."""
    environment = {**os.environ, **OPENFHE_KEYS, "PEERS_OUT": folder, "OMP_NUM_THREADS": "1"}
    rows, errors = [], []
    for python, command, read in [(runs[0][0], ["make_tasks.py"], lambda _: []), *runs]:
        print(" ".join(command), "…", file=sys.stderr)
        script = [python, str(options.peers.resolve() / command[0]), *command[1:]]
        output, error = run(script, environment, folder)
        if not error:
            try:
                rows += read(printed_json(output))
            except (KeyError, ValueError) as missing:
                error = f"unexpected output: {missing!r}"
        if error:
            errors.append(f"{' '.join(command)}: {error}")
    return rows, errors


def run(command, environment, folder, pin=True):
    """What a program prints, or the end of its complaint."""
    pinned = ["taskset", "-c", "1"] if pin and shutil.which("taskset") and 1 in os.sched_getaffinity(0) else []
    try:
        done = subprocess.run([*pinned, *command], env=environment, cwd=folder, capture_output=True, text=True)
    except OSError as error:
        return "", str(error)
    return done.stdout, "" if done.returncode == 0 else tail(done.stderr) or f"exit status {done.returncode}"


def tail(text):
    return " | ".join(text.strip().splitlines()[-3:])


def printed_json(output):
    """The object that a script prints last, after whatever its libraries print."""
    return json.loads(output[("\n" + output).rindex("\n{\n") :])


def measure(options):
    """Cloister's figures by their ids, and an error if there are none."""
    command = [str(options.measure.resolve())] if options.measure else ["cargo", "measure", "--"]
    figures = {}
    for group in ["linear", "trees", "service"]:
        print("measure", group, "…", file=sys.stderr)
        output, error = run([*command, "--json", group], os.environ, ROOT, pin=group != "service")
        if error:
            return figures, f"measure {group}: {error}"
        lines = map(json.loads, output.splitlines())
        figures.update((line["id"], line["value"]) for line in lines)
    return figures, ""


def merge(before, after):
    """Of both measurements the faster times, the larger errors, the fewer labels."""
    return {id: (max if id.endswith("_error") else min)(before[id], after[id]) for id in before.keys() & after.keys()}


# What the scripts print, as rows: task, rows, system, version, and what is compared


def read_tenseal(result):
    title = f"TenSEAL, {result['mode']}"
    return [row_of_phases(result["task"], result["n_samples"], title, result, result["phases"], result["key_bytes"])]


def read_openfhe(result):
    title, keys = f"OpenFHE, {result['mode']}", sum(result["key_bytes"].values())
    return [row_of_phases(result["task"], result["n_samples"], title, result, result["phases"], keys)]


def read_pyfhel(result):
    runs = [(int(count), run) for count, run in result["runs"].items()]
    version = {"version": result["version"]}
    return [
        row_of_phases("iris", count, "Pyfhel", run | version, run["phases"], sum(run["key_bytes"].values()))
        for count, run in runs
    ]


def row_of_phases(task, count, system, result, phases, key_bytes):
    return {
        "task": task,
        "rows": count,
        "system": system,
        "version": result["version"],
        "server_us": phases["server_eval"]["cpu_min"] * 1e6,
        "client_us": (phases["client_encrypt"]["cpu_min"] + phases["client_decrypt"]["cpu_min"]) * 1e6,
        "request_bytes": result["ciphertext_bytes"],
        "reply_bytes": result["response_bytes"],
        "key_bytes": key_bytes,
        "max_logit_error": result["max_abs_logit_err"],
        "labels_equal": result["label_agreement"],
    }


def read_concrete(result):
    """Its error and labels are those of all rows that it evaluated, everything else is of one."""
    is_linear = result["model"] == "lr"
    bits = result["n_bits"]
    # Of trees it tells those of features and of leaves, which are as many.
    bits = bits["op_inputs"] if isinstance(bits, dict) else bits
    row = {
        "task": result["task"] if is_linear else f"{result['task']}-{result['model']}",
        "rows": 1,
        "system": f"Concrete ML, {bits} bits",
        "version": result["version"],
        "server_us": min(result["server_1thread"]["run_cpu"]) * 1e6,
        "client_us": (result["encrypt"]["cpu_min"] + result["decrypt"]["cpu_min"]) * 1e6,
        "request_bytes": result["request_ct_bytes_per_sample"],
        "reply_bytes": result["response_bytes_per_sample"],
        "key_bytes": result["eval_key_bytes"],
    }
    if is_linear:
        row["max_logit_error"] = result["fhe"]["max_abs_logit_err"]
        row["labels_equal"] = result["fhe_vs_sklearn_label_agreement"]
    else:
        row["accuracy_float"] = result["acc_plain_float"]
        # Of all rows that are held out: encryption changes none of its labels but for its p_error.
        row["accuracy_encrypted"] = result["acc_cml_clear_quantised"]
    return [row]


def of_tasks(*commands):
    return [command.format(task) for task in TASKS for command in commands]


# For each option: the scripts with their arguments, and the reader of what they print.
SYSTEMS = {
    "tenseal": (of_tasks("tenseal_lr.py {} batch40 3", "tenseal_lr.py {} batch 3"), read_tenseal),
    "concrete": (
        of_tasks(f"cml_bench.py {{}} lr 12 {CONCRETE_ROWS}")
        + [f"cml_bench.py {arguments} {CONCRETE_CHOOSER_ROWS}" for arguments, _ in CHOOSERS.values()],
        read_concrete,
    ),
    "openfhe": (
        of_tasks("openfhe_lr.py {} row 3 1", "openfhe_lr.py {} row 3", "openfhe_lr.py {} col 3"),
        read_openfhe,
    ),
    "pyfhel": (["pyfhel_seed.py 3 1,140"], read_pyfhel),
}


# Comparing


def place(row):
    """Where a row stands in a table; rows of one place differ in the mode of the system."""
    return [*TASKS, *CHOOSERS].index(row["task"]), row["rows"], row["system"].split(",")[0]


def compare(row, figures):
    """The row, with our figures beside it if there are any."""
    if row["task"] in CHOOSERS:
        return row | {"ours": of_chooser(CHOOSERS[row["task"]][1], figures)}
    ours = [of_id(id, figures) for id in OURS[row["task"], row["rows"]] if f"linear/{id}/server_us" in figures]
    exact = [one for one in ours if one["max_logit_error"] <= row["max_logit_error"]]
    if exact:
        return row | {"ours": min(exact, key=lambda one: one["server_us"])}
    return row | {"ours": min(ours, key=lambda one: one["max_logit_error"], default=None)}


def of_id(id, figures):
    def figure(what):
        return figures.get(f"linear/{id}/{what}")

    compared = {what: figure(what) for what in COMPARED}
    compared["key_bytes"] = figure("public_key_bytes")
    labels = figure("labels_equal") / figure("rows")
    return {"id": id, **compared, "max_logit_error": figure("max_logit_error"), "labels_equal": labels}


def of_chooser(id, figures):
    what = {one: one for one in [*COMPARED, "accuracy_float", "accuracy_encrypted"]} | {"key_bytes": "public_key_bytes"}
    return {one: figures.get(f"{id}/{ours}") for one, ours in what.items()} | {"id": id}


def machine():
    """The processor's name and its vectors, as Linux tells them."""
    pairs = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    said = {name.strip(): value.strip() for name, _, value in pairs}
    flags = said.get("flags", "").split()
    vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    return f"{said.get('model name', 'unknown')}, {os.cpu_count()} cores, {vectors}"


# Printing


def print_text(report):
    print(report["machine"])
    print("load averages at the end:", ", ".join(f"{load:.1f}" for load in report["load"]))
    print(NOTES)
    for table in tables(report["rows"]):
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for line in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        print()
    for id, value in sorted(report["figures"].items()):
        if id.startswith("service/"):
            print(f"{id}: {value:.4g}")


def print_markdown(report):
    print(f"On {report['machine']}. {' '.join(NOTES.split())}\n")
    for titles, *lines in tables(fastest(report["rows"])):
        for line in [titles, ["---"] * len(titles), *lines]:
            print("| " + " | ".join(line) + " |")
        print()


def tables(rows):
    """That of linear models and that of models that choose, where there are rows."""
    choosers = [cells(row) for row in rows if row["task"] in CHOOSERS]
    linear = [cells(row) for row in rows if row["task"] not in CHOOSERS]
    return [[titles, *lines] for titles, lines in [(LINEAR_TITLES, linear), (CHOOSER_TITLES, choosers)] if lines]


def fastest(rows):
    """One row for each task, number of rows and system."""
    best = {}
    for row in rows:
        key = place(row)
        best[key] = min(best.get(key, row), row, key=lambda row: (row.get("labels_equal", 1) < 1, row["server_us"]))
    return [best[key] for key in sorted(best)]


def cells(row):
    ours = row["ours"] or {}
    compared = [
        both(row[what], ours.get(what), time if what.endswith("_us") else size, ratio=True) for what in COMPARED
    ]
    return [row["task"], str(row["rows"]), f"{row['system']} ({row['version']})", *compared, *quality(row, ours)]


def quality(row, ours):
    if row["task"] in CHOOSERS:
        accuracies = ["accuracy_float", "accuracy_encrypted"]
        return [both(row[what], ours.get(what), lambda share: f"{share:.3f}") for what in accuracies]
    error = both(row["max_logit_error"], ours.get("max_logit_error"), lambda error: f"{error:.1e}")
    labels = both(row["labels_equal"], ours.get("labels_equal"), lambda share: f"{share:.1%}".replace("100.0%", "all"))
    return [error, labels]


def both(theirs, ours, write, ratio=False):
    if ours is None:
        return f"{write(theirs)} / –"
    times = f" ({number(theirs / ours)}×)" if ratio and ours else ""
    return f"{write(theirs)} / {write(ours)}{times}"


def time(us):
    return scaled(us, [("µs", 1), ("ms", 1e3), ("s", 1e6)])


def size(count):
    return scaled(count, [("B", 1), ("kB", 1e3), ("MB", 1e6)])


def scaled(value, units):
    name, scale = next((unit for unit in reversed(units) if value >= unit[1]), units[0])
    return f"{number(value / scale)} {name}"


def number(value):
    """Two digits, or the integer."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


if __name__ == "__main__":
    main()
